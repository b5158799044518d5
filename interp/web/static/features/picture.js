// The picture with the maps of features on it: one feature by the colour ramp, several as layers of one colour each.
// Screen and PNG, which has a caption, share the code.
/** @import { FeatureData } from "./data.js" */
import { FONT, PatchCanvas } from "../shared/canvas.js";
import { ramp } from "../shared/colours.js";

const HEAT = 0.66; // of one map; zero is not tinted at all
const LAYER = 0.85; // of a layer where its feature is highest

/** @extends {PatchCanvas<FeatureData>} */
export class FeaturePicture extends PatchCanvas {
  // state.maps: [{at, top, colour}]; top is the highest value on the picture, 0 where there is none
  paint(ctx, state, width, height) {
    this.background(ctx, state, width, height);
    const maps = state.maps.filter((map) => map.top > 0);
    if (maps.length) this.fade(ctx, width, height);
    const several = state.maps.length > 1;
    this.each(state, width, height, (row, _, x, y, w, h) => {
      for (const { at, top, colour } of maps) {
        if (!(at[row] > 0)) continue;
        const v = Math.min(1, at[row] / top);
        ctx.globalAlpha = several ? LAYER * v : HEAT;
        ctx.fillStyle = several ? colour : `rgb(${ramp(v).join(",")})`;
        ctx.fillRect(x, y, w, h);
      }
      ctx.globalAlpha = 1;
      if (w > 20) {
        ctx.strokeStyle = "rgba(255,255,255,.16)";
        ctx.lineWidth = 1;
        ctx.strokeRect(x - 0.5, y - 0.5, w, h);
      }
    });
  }

  paintMarks(ctx, state, width, height, accent) {
    this.strokePlaces(ctx, state, width, height, accent);
    for (const [box, colour] of [
      [state.box, accent],
      [state.drawing, "#fff"],
    ]) {
      if (!box || box.grid !== state.grid) continue;
      const { cols } = this.data.grids[box.grid];
      const from = box.r0 * cols + box.c0,
        to = box.r1 * cols + box.c1;
      this.stroke(ctx, state, width, height, from, to, "rgba(0,0,0,.85)", 6, 0);
      this.stroke(ctx, state, width, height, from, to, colour, 3.5, 0);
    }
  }

  // The map as seen, and below it what it shows: lines is [[text, colour of its swatch, "ramp" for the colour scale, or null]].
  png(state, lines, accent) {
    const scene = this.scene(state);
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1024, this.width * 2);
    const scale = canvas.width / this.width;
    const width = this.width,
      height = (this.width * scene.height) / scene.width;
    const size = Math.max(11, width / 34),
      step = size * 1.5;
    canvas.height = Math.round(height * scale) + Math.round((lines.length * step + size) * scale);
    const ctx = canvas.getContext("2d");
    ctx.fillStyle = "#ffffff";
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    this.paint(ctx, state, width, height);
    this.paintMarks(ctx, { ...state, shownRow: null, hover: null, drawing: null }, width, height, accent);
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
      ctx.fillText(clipped(ctx, text, width - x - size * 0.7), x, y);
    });
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }
}

// A caption that is too long ends in an ellipsis.
function clipped(ctx, text, width) {
  const signs = Array.from(text);
  let shown = text;
  while (signs.length && ctx.measureText(shown).width > width) {
    signs.pop();
    shown = `${signs.join("")}…`;
  }
  return shown;
}
