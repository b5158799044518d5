// The attribution payload as typed arrays, and what is computed from it: scores by position, orders, sums. No DOM.
/** @import { AttributedItem, AttributionPayload, FeatureWords, SignedRows, WordAttribution, WordSpec } from "../payloads.js" */
import { decodeArray, decodeBytes, SceneData } from "../shared/payload.js";

const SCHEMA = "llava-microscope/attribution-view/1";

/**
 * Scores at every row, and where they are largest by size: on the picture, and in the text. Positions left out of rankings set no scale.
 * @typedef {{ at: Float32Array, peak: number, peakRow: number | null, textPeak: number, low: number, high: number }} Signed
 *
 * A line of the list: a feature, or what the SAE misses (`feature` is null). `exact` is null where it was not measured.
 * @typedef {Omit<AttributedItem, "rows" | "values" | "feature"> & Signed & { feature: number | null }} Line
 *
 * @typedef {{ spec: WordSpec, raw: WordAttribution, lines: Line[], error: Line, rest: { count: number, score: number }, top: number }} Word
 *
 * What one feature did for every token of the answer; `scores` has a number for each.
 * @typedef {{ feature: number, scores: number[], top: number, lines: Line[], others: string[] }} Tracked
 */

/** @param {WordSpec} spec */
export function specKey({ token, baseline, top }) {
  return JSON.stringify([token, baseline, top]);
}

/** @extends {SceneData<AttributionPayload>} */
export class AttributionData extends SceneData {
  /** @param {AttributionPayload} payload */
  constructor(payload) {
    super(payload, SCHEMA);
    this.run = payload.run ?? null;
    this.leftOut = new Set(payload.left_out);
    this.start = payload.start;
    /** The tokens of the answer. */
    this.answer = this.tokens.slice(this.start);
    /** Number of the token that ends it, -1 if it was cut. */
    this.end = payload.finished ? this.answer.length - 1 : -1;
    /** @type {Map<string, Word>} */
    this.words = new Map();
    for (const raw of payload.words) this.add(raw);
    if (!this.words.size) throw new Error("The data of this view is damaged: it explains no word.");
  }

  /** The word to open with. */
  get first() {
    return /** @type {Word} */ (this.words.values().next().value);
  }

  /**
   * Decode one word and keep it.
   * @param {WordAttribution} raw
   * @returns {Word}
   */
  add(raw) {
    const { spec } = raw;
    if (!(spec.token >= 0 && spec.token < this.answer.length)) {
      throw new Error(`The data of this view is damaged: it explains token ${spec.token} of ${this.answer.length}.`);
    }
    const lines = raw.features.map((item) => ({ ...item, ...this.signed(item, `feature ${item.feature}`) }));
    const listed = lines.reduce((sum, line) => sum + line.score, 0);
    const error = { ...NO_FEATURE, ...raw.all_missed, ...this.signed(raw.missed, "the error") };
    const rest = { count: Math.max(0, raw.active - lines.length), score: raw.all_features.score - listed };
    const sizes = [...lines, error].flatMap((line) => [Math.abs(line.score), Math.abs(line.exact ?? 0)]);
    const word = { spec, raw, lines, error, rest, top: Math.max(...sizes, Math.abs(rest.score), 1e-9) };
    this.words.set(specKey(spec), word);
    return word;
  }

  /**
   * A feature's scores for every token of the answer, each with its own map.
   * @param {FeatureWords} raw
   * @returns {Tracked}
   */
  tracked(raw) {
    const { words, ...about } = raw;
    if (words.length !== this.answer.length) {
      throw new Error(`The data of this view is damaged: ${words.length} scores for ${this.answer.length} tokens.`);
    }
    const scores = words.map(({ score }) => score);
    const lines = words.map((word) => ({ ...about, score: word.score, exact: null, ...this.signed(word, `feature ${raw.feature}`) }));
    return { feature: raw.feature, scores, top: Math.max(...scores.map(Math.abs), 1e-9), lines, others: words.map(({ other }) => other) };
  }

  /**
   * @param {SignedRows} raw
   * @param {string} name
   * @returns {Signed}
   */
  signed(raw, name) {
    const bytes = decodeBytes(raw.values);
    const rows = decodeArray(Uint16Array, raw.rows, bytes.length / 4, `rows of ${name}`);
    const values = new Float32Array(bytes.buffer);
    const out = { at: new Float32Array(this.T), peak: 0, peakRow: /** @type {number | null} */ (null), textPeak: 0, low: 0, high: 0 };
    rows.forEach((row, i) => {
      if (row >= this.T) throw new Error(`The data of this view is damaged: ${name} has a score at row ${row} of ${this.T}.`);
      out.at[row] = values[i];
      if (this.leftOut.has(row)) return;
      const size = Math.abs(values[i]);
      if (!this.place.has(row)) {
        out.textPeak = Math.max(out.textPeak, size);
        return;
      }
      out.low = Math.min(out.low, values[i]);
      out.high = Math.max(out.high, values[i]);
      if (size > out.peak) {
        out.peak = size;
        out.peakRow = row;
      }
    });
    return out;
  }

  /** @param {{ label: string, feature: number | null }} line */
  name({ label, feature }) {
    return feature === null ? "the SAE's error" : label || `feature ${feature}`;
  }

  /**
   * The features that raised a word most, strongest first: those that "ablate the top" takes away.
   * @param {Word} word
   * @param {number} count
   */
  raising(word, count = word.lines.length) {
    return word.lines
      .filter(({ score }) => score > 0)
      .sort((a, b) => b.score - a.score)
      .slice(0, count);
  }

  /**
   * The lines with a score at a row, largest by size first.
   * @param {Line[]} lines
   * @param {number} row
   */
  at(lines, row) {
    return lines.filter(({ at }) => at[row] !== 0).sort((a, b) => Math.abs(b.at[row]) - Math.abs(a.at[row]));
  }

  /**
   * The patches of the first grid on which a line has a score, as [row, column].
   * @param {Line} line
   */
  patches({ at }) {
    const [{ positions, cols }] = this.grids;
    return [...positions.keys()].filter((i) => at[positions[i]] !== 0).map((i) => [Math.floor(i / cols), i % cols]);
  }
}

const NO_FEATURE = { feature: null, label: "", source: "", dense: "", link: null, max: 0 };
