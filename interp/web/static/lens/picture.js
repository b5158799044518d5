// The lens's picture: patches with colours and words, outlines of chosen words.
// Screen and PNG share the code.
/** @import { LensData } from "./data.js" */
import { FONT, OPACITY, PatchCanvas } from "../shared/canvas.js";
import { OUTLINES, ramp } from "../shared/colours.js";

/** @extends {PatchCanvas<LensData>} */
export class LensPicture extends PatchCanvas {
  constructor(data, base, marks) {
    super(data, base, marks);
    this.widths = new Map();
  }

  // For each patch a number from 0 to 1 for the ramp, or NaN for no colour.
  values(state) {
    const { data } = this;
    const rows = data.grids[state.grid].positions,
      layer = state.shownLayer;
    const { map, found } = state;
    if (map) return Float32Array.from(rows, (row) => (map.top > 0 ? map.values.get(row) / map.top : NaN));
    if (state.colour === "entropy") return Float32Array.from(rows, (row) => data.entropy(layer, row) / data.maxEntropy);
    if (state.colour === "found" && found)
      return Float32Array.from(rows, (row) => (found.values[layer * data.T + row] - found.low) / (found.top - found.low || 1));
    if (state.colour === "probability") return Float32Array.from(rows, (row) => data.share(data.p(layer, row), layer));
    return new Float32Array(rows.length).fill(NaN);
  }

  paint(ctx, state, width, height, masked = state.mask) {
    this.background(ctx, state, width, height);
    const shares = this.values(state);
    if (state.map) masked = false;
    if (!masked && (state.map || state.colour !== "none")) this.fade(ctx, width, height);
    this.each(state, width, height, (row, i, x, y, w, h) => {
      if (masked) {
        if (this.data.silent(state.shownLayer, row, state.min)) {
          ctx.fillStyle = "#000";
          ctx.fillRect(x, y, w, h);
        }
        return;
      }
      // The threshold is about the top word, so a found word is shown wherever it has a probability.
      const quiet = !state.map && state.colour !== "found" && this.data.p(state.shownLayer, row) < state.min;
      if (quiet) {
        ctx.fillStyle = "rgba(24,26,31,.72)";
        ctx.fillRect(x, y, w, h);
        return;
      }
      if (!Number.isNaN(shares[i])) {
        const [cr, cg, cb] = ramp(shares[i]);
        ctx.fillStyle = `rgba(${cr},${cg},${cb},${OPACITY})`;
        ctx.fillRect(x, y, w, h);
      } else if (!state.map && state.colour === "found") {
        ctx.fillStyle = "rgba(24,26,31,.55)";
        ctx.fillRect(x, y, w, h);
      }
      this.edge(ctx, x, y, w, h, state.colour === "none" ? "rgba(255,255,255,.4)" : "rgba(16,20,28,.28)", 14);
      if (!state.map) this.word(ctx, this.data.look(this.data.id(state.shownLayer, row)), x, y, w, h);
    });
  }

  // A word that does not fit is left out: half a word reads as another word.
  word(ctx, look, x, y, w, h) {
    if (w < 30 || h < 14) return; // in smaller patches only short words would fit, which is worse than none
    const unit = this.measure(ctx, look.text);
    const size = Math.min(13, h * 0.6, (w - 4) / unit);
    if (size < 7.5) return;
    ctx.font = `${look.dim ? 400 : 600} ${size}px ${FONT}`;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.lineJoin = "round";
    ctx.lineWidth = Math.max(2, size / 4.5);
    ctx.strokeStyle = look.dim ? "rgba(0,0,0,.3)" : "rgba(0,0,0,.68)";
    ctx.fillStyle = look.dim ? "rgba(255,255,255,.6)" : "#fff";
    ctx.strokeText(look.text, x + w / 2, y + h / 2 + 0.5);
    ctx.fillText(look.text, x + w / 2, y + h / 2 + 0.5);
  }

  // Width of a text per pixel of font size; measured once per text.
  measure(ctx, text) {
    let unit = this.widths.get(text);
    if (unit === undefined) {
      ctx.font = `600 100px ${FONT}`;
      unit = Math.max(0.4, ctx.measureText(text).width / 100);
      this.widths.set(text, unit);
    }
    return unit;
  }

  paintMarks(ctx, state, width, height, accent) {
    const words = state.map ? [] : this.data.grids[state.grid].positions;
    words.forEach((row, i) => {
      const slot = state.outlined.indexOf(this.data.id(state.shownLayer, row));
      if (slot < 0) return;
      this.stroke(ctx, state, width, height, i, i, "rgba(0,0,0,.7)", 4, 2);
      this.stroke(ctx, state, width, height, i, i, OUTLINES[slot % OUTLINES.length], 2, 2);
    });
    this.strokePlaces(ctx, state, width, height, accent);
  }

  // The masked picture as a PNG in its own pixels.
  png(state) {
    const { image, width, height } = this.scene(state);
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = Math.round((canvas.width * height) / width);
    this.paint(canvas.getContext("2d"), state, canvas.width, canvas.height, true);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }
}
