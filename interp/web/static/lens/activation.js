// The activation map of one word of the answer: a colour for each patch and a number for the one that is read, each map asked for once.
/** @import { LensData } from "./data.js" */
import { Asker } from "../shared/asker.js";
import { Chips } from "../shared/chips.js";
import { barRows, tokenElement } from "../shared/elements.js";
import { decodeArray, placeName } from "../shared/payload.js";
import { amount, look } from "../shared/text.js";

const SILENCE = "The server could not compute this map. Press Run and try again.";

/**
 * `values`: by position, at most `top`; `token`: the number of the word in the answer.
 * @typedef {{ token: number, values: Map<number, number>, top: number, note: string }} WordMap
 */
export class ActivationMap {
  /**
   * @param {Record<string, any>} part
   * @param {() => void} changed
   * @param {AbortSignal} signal
   */
  constructor(part, changed, signal) {
    this.part = part;
    this.changed = changed;
    this.chips = new Chips(part.words, { choose: () => this.go(), point: () => {} }, signal);
  }

  /**
   * Another run. `ask(token)` gets the map of a token of the answer.
   * @param {LensData} data
   * @param {(token: number) => any} ask
   * @param {AbortSignal} signal
   */
  begin(data, ask, signal) {
    this.data = data;
    this.ask = ask;
    this.asker = new Asker(signal);
    /** @type {Map<number, WordMap>} */
    this.maps = new Map();
    this.start = data.kinds.indexOf("a");
    this.image = [...data.kinds].flatMap((kind, row) => (kind === "i" ? [row] : []));
    this.words = data.tokens.slice(this.start);
    const end = data.payload.finished ? this.words.length - 1 : -1;
    const content = this.words.findIndex((text, i) => i !== end && text.trim().length > 2 && !look(text).dim);
    this.chips.draw(this.words, { at: Math.max(0, content), end });
  }

  /** The map of the chosen word, null until it is there. */
  get map() {
    return this.maps.get(this.chips.chosen) ?? null;
  }

  async go() {
    const token = this.chips.chosen,
      { image } = this;
    this.part.mapNote.classList.remove("view-bad");
    if (!this.maps.has(token)) {
      this.part.mapNote.textContent = "Computing the map …";
      const out = await this.asker.ask("map", () => this.ask(token), SILENCE);
      if (!out) return;
      try {
        if (out.error !== undefined) throw new Error(out.error);
        const stored = decodeArray(Float32Array, out.answer.values, image.length, "map");
        const values = new Map(image.map((row, i) => [row, stored[i]]));
        this.maps.set(token, { token, values, top: Math.max(...stored), note: out.answer.note });
      } catch (error) {
        this.part.mapNote.textContent = /** @type {Error} */ (error).message;
        this.part.mapNote.classList.add("view-bad");
        return this.changed();
      }
    }
    this.asker.cancel("map");
    const { top, note } = /** @type {WordMap} */ (this.map);
    this.part.mapNote.textContent = top > 0 ? note : "No patch would say this word itself: the map is empty.";
    this.changed();
  }

  /** The chosen word as the reader sees it. */
  get word() {
    return look(this.words[this.chips.chosen] ?? "");
  }

  /**
   * What the map says of one place.
   * @param {number} row
   */
  read(row) {
    const { part, data, map } = this;
    const value = map?.values.get(row);
    part.where.textContent = `${data.place.has(row) ? "Patch " : ""}${placeName(data, row)}`;
    part.whereSub.textContent = `position ${row} · last layer · ${value === undefined ? "no part of the map" : `of at most ${amount(map?.top)}`}`;
    barRows(part.top, value === undefined || !map ? [] : [[tokenElement(this.word), map.top > 0 ? value / map.top : 0, amount(value)]]);
  }
}
