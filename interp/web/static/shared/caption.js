// A picture with its map as a PNG, and below it what it shows: a file that is passed on alone must say what it is.
/** @import { PatchCanvas, PictureData, PictureState } from "./canvas.js" */
import { FONT } from "./canvas.js";
import { ramp } from "./colours.js";

/**
 * Each line is its text and the colour of its swatch, "ramp" for the colour scale, or null. The last one, smaller, says where the map comes from.
 * @template {PictureData} D
 * @param {PatchCanvas<D>} picture
 * @param {PictureState} state
 * @param {(string | null)[][]} lines
 * @param {string} accent
 * @returns {Promise<Blob | null>}
 */
export function captioned(picture, state, lines, accent) {
  const scene = picture.scene(state);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1024, picture.width * 2);
  const scale = canvas.width / picture.width;
  const width = picture.width,
    height = (picture.width * scene.height) / scene.width;
  const size = Math.max(11, width / 34),
    step = size * 1.5;
  canvas.height = Math.round(height * scale) + Math.round((lines.length * step + size) * scale);
  const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  ctx.fillStyle = "#ffffff";
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.setTransform(scale, 0, 0, scale, 0, 0);
  picture.paint(ctx, state, width, height);
  picture.paintMarks(ctx, { ...state, shownRow: null, hover: null, drawing: null }, width, height, accent);
  ctx.textBaseline = "middle";
  lines.forEach(([text, colour], i) => {
    const y = height + size * 0.5 + (i + 0.5) * step;
    let x = size * 0.7;
    if (colour) {
      const wide = colour === "ramp" ? size * 4 : size * 0.8;
      const shades = ctx.createLinearGradient(x, 0, x + wide, 0);
      for (let v = 0; v <= 1; v += 0.125) shades.addColorStop(v, `rgb(${ramp(v).join(",")})`);
      ctx.fillStyle = colour === "ramp" ? shades : colour;
      ctx.fillRect(x, y - size * 0.4, wide, size * 0.8);
      ctx.strokeStyle = "rgba(0,0,0,.6)";
      ctx.lineWidth = 0.5;
      ctx.strokeRect(x, y - size * 0.4, wide, size * 0.8);
      x += wide + size * 0.5;
    }
    ctx.font = `${i < lines.length - 1 ? 600 : 400} ${i < lines.length - 1 ? size : size * 0.82}px ${FONT}`;
    ctx.fillStyle = i < lines.length - 1 ? "#171a20" : "#5c6472";
    ctx.fillText(clipped(ctx, text ?? "", width - x - size * 0.7), x, y);
  });
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/**
 * A caption that is too long ends in an ellipsis.
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} text
 * @param {number} width
 */
function clipped(ctx, text, width) {
  const signs = Array.from(text);
  let shown = text;
  while (signs.length && ctx.measureText(shown).width > width) {
    signs.pop();
    shown = `${signs.join("")}…`;
  }
  return shown;
}
