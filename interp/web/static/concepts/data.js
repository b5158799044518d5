// The concepts payload as typed arrays, and what is computed from it: codes by position, scales, orders. No DOM.
/** @import { ConceptExample, ConceptItem, ConceptsPayload, ShiftPayload, ShiftedItem } from "../payloads.js" */
import { decodeArray, decodeBytes, SceneData } from "../shared/payload.js";

const SCHEMA = "llava-microscope/concepts-view/1";
const NAMED = 3; // words that stand for a concept

/**
 * `at`: its code at every row; `low` and `top`: the ends of its colour scale; `peakRow`: the patch of the picture that has most of it.
 * @typedef {Omit<ConceptItem, "places"> & { at: Float32Array, low: number, top: number, peakRow: number | null, places: Uint16Array }} Concept
 */

/**
 * The marks of an axis: its lower end and 0, 0.5 and 1, without the end where that is too near to 0 to be told apart.
 * @param {number} low
 * @param {number} high
 */
export function ticks(low, high) {
  return [...(low < -0.1 * (high - low) ? [low] : []), 0, 0.5, 1];
}

/** @extends {SceneData<ConceptsPayload>} */
export class ConceptData extends SceneData {
  /** @param {ConceptsPayload} payload */
  constructor(payload) {
    super(payload, SCHEMA);
    this.run = payload.run ?? null;
    this.leftOut = new Set(payload.left_out);
    if (!payload.concepts.length) throw new Error("The data of this view is damaged: it has no concepts.");
    const codes = decodeArray(Float32Array, payload.codes, payload.concepts.length * this.T, "codes");
    const image = [...this.place.keys(), ...this.regionOf.keys()].filter((row) => row < this.T && !this.leftOut.has(row));
    // Codes of k-means are never 0 and those of PCA have a sign: their scale begins at the lowest of this picture.
    const floored = ["k-means", "pca"].includes(payload.dictionary.method);
    const rows = (/** @type {number} */ k) => codes.subarray(k * this.T, (k + 1) * this.T);
    const low = floored
      ? image.reduce((least, row) => payload.concepts.reduce((v, _, k) => Math.min(v, rows(k)[row]), least), Infinity)
      : 0;
    this.low = Number.isFinite(low) ? low : 0;
    /** @type {Concept[]} */
    this.concepts = payload.concepts.map((item, k) => {
      const at = rows(k);
      const places = decodeArray(Uint16Array, item.places, decodeBytes(item.places).length / 2, `places of concept ${k}`);
      const peakRow = image.reduce((best, row) => (best === null || at[row] > at[best] ? row : best), /** @type {number | null} */ (null));
      const strongest = Math.max(item.activation, ...item.examples.map(({ activation }) => activation));
      return { ...item, places, at, low: this.low, top: Math.max(strongest, this.low + 1e-9), peakRow };
    });
    /** @type {Map<number, ShiftedItem>} */
    this.shifted = new Map((payload.shift?.concepts ?? []).map((item) => [item.concept, item]));
  }

  /**
   * How much of a concept is at a row, from 0 to 1: of the most that it reaches on this picture or its own.
   * @param {Concept} concept
   * @param {number} row
   */
  share({ at, low, top }, row) {
    return Math.min(1, Math.max(0, (at[row] - low) / (top - low)));
  }

  /**
   * The same for the map of one of its pictures.
   * @param {Concept} concept
   * @param {ConceptExample} example
   * @returns {number[]}
   */
  sharesOf(concept, example) {
    const { rows, cols, map } = example;
    if (!map) return [];
    const values = decodeArray(Float32Array, map, rows * cols, `a map of concept ${concept.concept}`);
    const low = this.low ? Math.min(...values) : 0;
    const top = Math.max(concept.top, ...values, low + 1e-9);
    return Array.from(values, (v) => Math.min(1, Math.max(0, (v - low) / (top - low))));
  }

  /** @param {{ concept: number, words: string[] }} concept */
  name({ concept, words }) {
    return words.length ? words.slice(0, NAMED).join(", ") : `concept ${concept}`;
  }

  /**
   * The concepts in the order of the list.
   * @param {string} order "here", "size" or "moved"
   */
  ordered(order) {
    const value = (/** @type {Concept} */ each) =>
      order === "size"
        ? each.size
        : order === "moved"
          ? (this.shifted.get(each.concept)?.relative ?? -1)
          : each.places.length + this.most(each);
    return [...this.concepts].sort((a, b) => value(b) - value(a));
  }

  /**
   * The most of a concept on this picture, from 0 to 1.
   * @param {Concept} concept
   */
  most(concept) {
    return concept.peakRow === null ? 0 : this.share(concept, concept.peakRow);
  }

  /**
   * The concepts that a position has most of.
   * @param {number} row
   * @param {number} count
   */
  strongest(row, count) {
    return [...this.concepts].sort((a, b) => b.at[row] - a.at[row]).slice(0, count);
  }

  /** The concepts that have both figures, as points of the scatter. */
  get points() {
    const points = [];
    for (const { concept, consistency, recovery, relative } of this.shifted.values()) {
      if (consistency !== null && recovery !== null) points.push({ concept, consistency, recovery, relative });
    }
    return points;
  }

  /** How far other seeds find the concepts again. */
  get stability() {
    const all = this.concepts.map(({ stability }) => stability).sort((a, b) => a - b);
    const half = all.length >> 1;
    return { lowest: all[0], middle: all.length % 2 ? all[half] : (all[half - 1] + all[half]) / 2 };
  }

  /** @returns {ShiftPayload | null} */
  get shift() {
    return this.payload.shift;
  }
}
