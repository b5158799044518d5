// A small picture of a concept, with its map on it.
/** @import { ConceptExample } from "../payloads.js" */
/** @import { Concept, ConceptData } from "./data.js" */
import { ramp } from "../shared/colours.js";
import { el } from "../shared/elements.js";

const HEAT = 0.75; // where it is highest; weaker patches show more of the picture
const SIDE = 192; // pixels of the longer side, more than it is shown at

/**
 * @param {ConceptData} data
 * @param {Concept} concept
 * @param {ConceptExample} example
 */
export function thumb(data, concept, example) {
  const canvas = el("canvas", "concepts-thumb");
  const { picture } = example;
  if (!picture) return canvas;
  const scale = SIDE / Math.max(picture.width, picture.height);
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", example.answer || "a picture on which it is strong");
  const shares = data.sharesOf(concept, example);
  const image = new Image();
  image.src = picture.src;
  image
    .decode()
    .then(() => draw(canvas, image, example, shares))
    .catch(() => {}); // a damaged picture stays empty
  return canvas;
}

function draw(canvas, image, { rows, cols }, shares) {
  const ctx = canvas.getContext("2d");
  const { width, height } = canvas;
  ctx.drawImage(image, 0, 0, width, height);
  if (!shares.length) return;
  shares.forEach((v, i) => {
    if (!(v > 0)) return;
    ctx.globalAlpha = HEAT * v;
    const x = Math.round(((i % cols) * width) / cols),
      y = Math.round((Math.floor(i / cols) * height) / rows);
    ctx.fillStyle = `rgb(${ramp(v).join(",")})`;
    ctx.fillRect(x, y, Math.round((((i % cols) + 1) * width) / cols) - x, Math.round(((Math.floor(i / cols) + 1) * height) / rows) - y);
  });
  ctx.globalAlpha = 1;
}
