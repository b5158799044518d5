// The picture with signed scores on its patches: what raised the word in blue, what lowered it in orange and hatched, so that the sign is readable
// without colour too. Screen and PNG share the code.
/** @import { AttributionData } from "./data.js" */
import { PatchCanvas } from "../shared/canvas.js";

export const RAISED = "#1f7ae0";
export const LOWERED = "#e06a00";
const STRONGEST = 0.86,
  FAINTEST = 0.1; // of a score that is not zero

/** @extends {PatchCanvas<AttributionData>} */
export class AttributionPicture extends PatchCanvas {
  // state.line: the scores that are shown, or null
  paint(ctx, state, width, height) {
    const { line } = state;
    this.background(ctx, state, width, height);
    if (line) this.pale(ctx, width, height);
    this.each(state, width, height, (row, _, x, y, w, h) => {
      const v = line && line.peak > 0 ? Math.max(-1, Math.min(1, line.at[row] / line.peak)) : 0;
      if (v !== 0) {
        ctx.globalAlpha = FAINTEST + (STRONGEST - FAINTEST) * Math.abs(v);
        ctx.fillStyle = v > 0 ? RAISED : LOWERED;
        ctx.fillRect(x, y, w, h);
        if (v < 0) hatch(ctx, x, y, w, h);
        ctx.globalAlpha = 1;
      }
      this.edge(ctx, x, y, w, h);
    });
  }

  // Paler, with little colour: the scale has two colours of its own.
  pale(ctx, width, height) {
    ctx.save();
    ctx.globalCompositeOperation = "saturation";
    ctx.globalAlpha = 0.8;
    ctx.fillStyle = "#808080";
    ctx.fillRect(0, 0, width, height);
    ctx.globalCompositeOperation = "source-over";
    ctx.globalAlpha = 1;
    ctx.fillStyle = "rgba(235,238,243,.25)";
    ctx.fillRect(0, 0, width, height);
    ctx.restore();
  }
}

function hatch(ctx, x, y, w, h) {
  const step = Math.max(4, Math.min(w, h) / 4);
  ctx.save();
  ctx.beginPath();
  ctx.rect(x, y, w, h);
  ctx.clip();
  ctx.beginPath();
  for (let d = -h; d < w; d += step) {
    ctx.moveTo(x + d, y + h);
    ctx.lineTo(x + d + h, y);
  }
  ctx.globalAlpha = Math.min(1, ctx.globalAlpha + 0.15);
  ctx.strokeStyle = "rgba(60,22,0,.8)";
  ctx.lineWidth = 1;
  ctx.stroke();
  ctx.restore();
}
