// The picture with a word's map: patches coloured by the ramp from zero to the map's maximum, sinks marked, chosen patches crossed out.
// Screen and PNG share the code.
/** @import { AttentionData } from "./data.js" */
import { OPACITY, PatchCanvas } from "../shared/canvas.js";
import { ramp } from "../shared/colours.js";

const SINK = "#ffffff";

/** @extends {PatchCanvas<AttentionData>} */
export class AttentionPicture extends PatchCanvas {
  // state: {map: Float32Array of keys or null, top, chosen: set of rows, cursor: row or null}
  paint(ctx, state, width, height) {
    const { column } = this.data;
    const { map, top } = state;
    this.background(ctx, state, width, height);
    if (map) this.fade(ctx, width, height);
    this.each(state, width, height, (row, _, x, y, w, h) => {
      if (map && top > 0) {
        const [r, g, b] = ramp(map[column.get(row)] / top);
        ctx.fillStyle = `rgba(${r},${g},${b},${OPACITY})`;
        ctx.fillRect(x, y, w, h);
      }
      this.edge(ctx, x, y, w, h, "rgba(16,20,28,.28)", 14);
      if (state.chosen.has(row)) cross(ctx, x, y, w, h);
    });
  }

  paintMarks(ctx, state, width, height, accent) {
    const { decoder, tower } = this.data.payload.sinks;
    this.each(state, width, height, (row, _, x, y, w, h) => {
      const size = Math.max(3, Math.min(w, h) * 0.2);
      if (decoder.includes(row)) mark(ctx, x + w / 2, y + h / 2, size, true);
      if (tower.includes(row)) mark(ctx, x + w / 2, y + h / 2, size, false);
    });
    this.strokePlaces(ctx, state, width, height, accent);
    const place = state.cursor === null ? null : this.data.place.get(state.cursor);
    if (place?.grid !== state.grid) return;
    this.stroke(ctx, state, width, height, place.index, place.index, "rgba(0,0,0,.85)", 6, 0);
    this.stroke(ctx, state, width, height, place.index, place.index, "#fff", 3, 0);
  }
}

// A patch that the model is not to see.
function cross(ctx, x, y, w, h) {
  ctx.fillStyle = "rgba(16,18,22,.62)";
  ctx.fillRect(x, y, w, h);
  ctx.beginPath();
  ctx.moveTo(x + 3, y + 3);
  ctx.lineTo(x + w - 3, y + h - 3);
  ctx.moveTo(x + w - 3, y + 3);
  ctx.lineTo(x + 3, y + h - 3);
  ctx.strokeStyle = "rgba(255,255,255,.75)";
  ctx.lineWidth = 1.5;
  ctx.stroke();
}

// A diamond for a sink of the decoder, a square for a register of the tower.
function mark(ctx, x, y, size, diamond) {
  ctx.beginPath();
  if (diamond) {
    ctx.moveTo(x, y - size);
    ctx.lineTo(x + size, y);
    ctx.lineTo(x, y + size);
    ctx.lineTo(x - size, y);
    ctx.closePath();
  } else ctx.rect(x - size * 0.75, y - size * 0.75, size * 1.5, size * 1.5);
  ctx.lineWidth = 4;
  ctx.strokeStyle = "rgba(0,0,0,.8)";
  ctx.stroke();
  ctx.lineWidth = 1.8;
  ctx.strokeStyle = SINK;
  ctx.stroke();
}
