// The payload as typed arrays, and every question asked of it: activations at a place, orders, filters, figures as text.
// Schema "llava-microscope/feature-view/1". No DOM.
import { decodeArray, decodeBytes, decodePatches, requireSchema } from "../shared/payload.js";

const SCHEMA = "llava-microscope/feature-view/1";

export class FeatureData {
  constructor(payload) {
    requireSchema(payload, SCHEMA);
    this.payload = payload;
    this.run = payload.run ?? null;
    this.T = payload.tokens.kind.length - 1;
    this.tokens = payload.tokens.text.slice();
    this.kinds = payload.tokens.kind;
    const { grids, place, regions, regionOf, finest } = decodePatches(payload);
    this.grids = grids;
    this.place = place;
    this.regions = regions;
    this.regionOf = regionOf;
    this.finest = finest;
    this.leftOut = new Set(payload.left_out);
    this.known = new Map(); // number -> the feature as it was first told of
    this.home = payload.features.map((raw) => this.feature(raw));
  }

  // Whether a place that another view hands over is one of this picture and text; when it does not say, it is taken to be.
  isOf({ of }) {
    const { image, prompt, answer } = this.payload;
    return !of || (of.image === image.src && of.prompt === prompt && of.answer === answer);
  }

  // A feature with its activations at every row of T and the highest of them on the picture and in the text.
  feature(raw) {
    const bytes = decodeBytes(raw.values);
    const rows = decodeArray(Uint16Array, raw.rows, bytes.length / 4, `rows of feature ${raw.feature}`);
    const values = new Float32Array(bytes.buffer);
    const at = new Float32Array(this.T);
    let peak = 0,
      peakRow = null,
      textPeak = 0,
      texts = 0;
    rows.forEach((row, i) => {
      if (row >= this.T) throw new Error(`The data of this view is damaged: feature ${raw.feature} is active at row ${row} of ${this.T}.`);
      at[row] = values[i];
      if (!(values[i] > 0)) return;
      if (this.place.has(row)) {
        if (values[i] > peak) {
          peak = values[i];
          peakRow = row;
        }
        return;
      }
      texts += 1;
      if (!this.leftOut.has(row)) textPeak = Math.max(textPeak, values[i]);
    });
    const made = { ...raw, rows: null, values: null, at, peak, peakRow, textPeak, texts };
    if (!this.known.has(raw.feature)) this.known.set(raw.feature, made);
    return made;
  }

  name(entry) {
    return entry.label || `feature ${entry.feature}`;
  }

  // Rows of T of a box of patches, corners included.
  boxRows(g, [r0, c0, r1, c1]) {
    const { cols, positions } = this.grids[g];
    const rows = [];
    for (let r = r0; r <= r1; r++) for (let c = c0; c <= c1; c++) rows.push(positions[r * cols + c]);
    return rows;
  }

  // The listed features ranked over other rows, for a page with no model behind it.
  local(rows) {
    return this.home
      .map((entry) => {
        let sum = 0,
          max = 0,
          active = 0;
        for (const row of rows) {
          const v = entry.at[row];
          sum += v;
          max = Math.max(max, v);
          if (v > 0) active += 1;
        }
        const figures = { mean: sum / rows.length, max, frequency: active / rows.length };
        return { ...entry, ...figures, score: figures[this.payload.rank_by] };
      })
      .filter((entry) => entry.max > 0)
      .sort((a, b) => b.score - a.score || a.feature - b.feature);
  }

  // sort: null for the order they came in, or {key, down}.
  sorted(entries, sort) {
    if (!sort) return entries.slice();
    const { key, down } = sort;
    const sign = down ? -1 : 1;
    return entries.slice().sort((a, b) => {
      const x = a[key],
        y = b[key];
      // What is not known stands last in either direction.
      const missing = (v) => v === null || v === undefined || v === "";
      if (missing(x) || missing(y)) return +missing(x) - +missing(y) || a.feature - b.feature;
      const order = typeof x === "string" ? x.localeCompare(y, "en", { sensitivity: "base" }) : x - y;
      return sign * order || a.feature - b.feature;
    });
  }

  matches(entry, text) {
    const wanted = text.trim().toLowerCase();
    return !wanted || entry.label.toLowerCase().includes(wanted) || String(entry.feature).includes(wanted.replace(/^#/, ""));
  }

  // The features of `entries` that are active at a row, strongest first.
  activeAt(entries, row) {
    return entries.filter((entry) => entry.at[row] > 0).sort((a, b) => b.at[row] - a.at[row]);
  }
}
