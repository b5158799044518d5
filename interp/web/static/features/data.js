// The feature payload as typed arrays, and all that is computed from it: activations at a place, orders, filters. No DOM.
/** @import { FeatureItem, FeaturePayload } from "../payloads.js" */
import { decodeArray, decodeBytes, SceneData } from "../shared/payload.js";

const SCHEMA = "llava-microscope/feature-view/1";

/**
 * A feature with its activation at every row, and the highest of them on the picture and in the text; `texts` counts the text tokens.
 * @typedef {Omit<FeatureItem, "rows" | "values"> & {
 *   at: Float32Array, peak: number, peakRow: number | null, textPeak: number, texts: number,
 * }} DecodedFeature
 *
 * A column to sort by.
 * @typedef {"feature" | "label" | "score" | "mean" | "max" | "frequency" | "density"} SortKey
 */

/** @extends {SceneData<FeaturePayload>} */
export class FeatureData extends SceneData {
  /** @param {FeaturePayload} payload */
  constructor(payload) {
    super(payload, SCHEMA);
    this.run = payload.run ?? null;
    this.leftOut = new Set(payload.left_out);
    /** @type {Map<number, DecodedFeature>} each feature by its number, as it first came */
    this.known = new Map();
    this.home = payload.features.map((raw) => this.feature(raw));
  }

  /**
   * @param {FeatureItem} raw
   * @returns {DecodedFeature}
   */
  feature(raw) {
    const bytes = decodeBytes(raw.values);
    const rows = decodeArray(Uint16Array, raw.rows, bytes.length / 4, `rows of feature ${raw.feature}`);
    const values = new Float32Array(bytes.buffer);
    const at = new Float32Array(this.T);
    let peak = 0,
      textPeak = 0,
      texts = 0;
    /** @type {number | null} */
    let peakRow = null;
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
    const { rows: _rows, values: _values, ...told } = raw;
    const made = { ...told, at, peak, peakRow, textPeak, texts };
    if (!this.known.has(raw.feature)) this.known.set(raw.feature, made);
    return made;
  }

  /** @param {{ label: string, feature: number }} entry */
  name(entry) {
    return entry.label || `feature ${entry.feature}`;
  }

  /**
   * Rows of a box of patches, corners included.
   * @param {number} g
   * @param {number[]} corners row, column, row, column
   */
  boxRows(g, [r0, c0, r1, c1]) {
    const { cols, positions } = this.grids[g];
    const rows = [];
    for (let r = r0; r <= r1; r++) for (let c = c0; c <= c1; c++) rows.push(positions[r * cols + c]);
    return rows;
  }

  /**
   * The listed features ranked over other rows, for a page without a model.
   * @param {number[]} rows
   */
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
        /** @type {Record<string, number>} */
        const figures = { mean: sum / rows.length, max, frequency: active / rows.length };
        return { ...entry, ...figures, max, score: figures[this.payload.rank_by] };
      })
      .filter((entry) => entry.max > 0)
      .sort((a, b) => b.score - a.score || a.feature - b.feature);
  }

  /**
   * @template {DecodedFeature} F
   * @param {F[]} entries
   * @param {{ key: SortKey, down: boolean } | null} sort null for the order they came in
   */
  sorted(entries, sort) {
    if (!sort) return entries.slice();
    const { key, down } = sort;
    const sign = down ? -1 : 1;
    return entries.slice().sort((a, b) => {
      const x = a[key],
        y = b[key];
      // Unknown values come last in either direction.
      const missing = (/** @type {unknown} */ v) => v === null || v === undefined || v === "";
      if (missing(x) || missing(y)) return +missing(x) - +missing(y) || a.feature - b.feature;
      const order = typeof x === "string" ? x.localeCompare(String(y), "en", { sensitivity: "base" }) : Number(x) - Number(y);
      return sign * order || a.feature - b.feature;
    });
  }

  /**
   * @param {{ label: string, feature: number }} entry
   * @param {string} text
   */
  matches(entry, text) {
    const wanted = text.trim().toLowerCase();
    return !wanted || entry.label.toLowerCase().includes(wanted) || String(entry.feature).includes(wanted.replace(/^#/, ""));
  }

  /**
   * The features that are active at a row, strongest first.
   * @param {DecodedFeature[]} entries
   * @param {number} row
   */
  activeAt(entries, row) {
    return entries.filter((entry) => entry.at[row] > 0).sort((a, b) => b.at[row] - a.at[row]);
  }
}
