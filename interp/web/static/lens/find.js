// "Find a word": ask the host (or, with no host, the stored top k) for one word's probability everywhere.
// Calls set(found) with what the picture should be coloured by.
/** @import { LensData } from "./data.js" */

import { el } from "../shared/elements.js";
import { drawCurve } from "./readout.js";

export class Find {
  /**
   * findWord: (word, method) -> Promise<{spellings, values, range} | {error}>, or null in a file with no server
   * @param {LensData} data
   */
  constructor(data, part, findWord, set, signal) {
    this.data = data;
    this.part = part;
    this.findWord = findWord;
    this.set = set;
    this.asked = 0;
    this.kept = new Map(); // by lens and word
    part.find.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        this.go();
      },
      { signal },
    );
    part.findClear.addEventListener("click", () => this.clear(), { signal });
    part.word.addEventListener("keydown", (event) => event.stopPropagation(), { signal });
    part.word.value = "";
    this.clear();
  }

  hint() {
    return this.findWord ? "" : `This file has no model: only words among the stored top ${this.data.k} can be found.`;
  }

  // The same word through another lens.
  through(data) {
    const word = this.found?.word;
    this.data = data;
    this.clear();
    if (word === undefined) return;
    this.part.word.value = word;
    this.go();
  }

  async go() {
    const { data, part } = this;
    const word = part.word.value;
    const ask = ++this.asked;
    if (!word.trim()) return this.say("Type a word first.", true);
    let found = null;
    const key = `${data.method} ${word.trim()}`;
    if (this.kept.has(key)) found = this.kept.get(key);
    else if (this.findWord) {
      part.findGo.disabled = true;
      this.say("Searching…");
      try {
        const answer = await this.findWord(word, data.method);
        // gradio answers a crash on the server with nothing
        if (!answer) throw new Error("The server could not search for this word. Run the picture again, or try another word.");
        if (answer.error) throw new Error(answer.error);
        found = data.found(answer);
        this.kept.set(key, found);
      } catch (error) {
        if (ask === this.asked) this.fail(String(error?.message || error || "The search failed."));
        return;
      } finally {
        part.findGo.disabled = false;
      }
      if (ask !== this.asked) return; // a newer search or a clear came first
    } else {
      found = data.search(word);
      if (!found) return this.fail(`“${word.trim()}” is nowhere among the stored top ${data.k}. ${this.hint()}`);
    }
    const on = found.values.filter((v, i) => !Number.isNaN(v) && data.place.has(i % data.T));
    const top = on.reduce((best, v) => Math.max(best, v), data.similar ? -1 : 0);
    const low = data.similar ? on.reduce((least, v) => Math.min(least, v), top) : 0;
    const shown = found.spellings
      .slice(0, 6)
      .map((text) => `“${text}”`)
      .join(" ");
    this.found = { ...found, word: word.trim(), low, top };
    this.say(
      `Spelled ${shown}${found.spellings.length > 6 ? " …" : ""}, ${data.similar ? "the most similar one" : "summed"}. ${this.hint()}`,
    );
    part.findClear.hidden = false;
    this.set(this.found);
  }

  say(text, bad = false) {
    this.part.findNote.textContent = text;
    this.part.findNote.classList.toggle("view-bad", bad);
    this.part.word.setAttribute("aria-invalid", String(bad));
  }

  fail(text) {
    this.clear();
    this.say(text, true);
  }

  clear() {
    this.asked++;
    this.found = null;
    this.part.findClear.hidden = true;
    this.say(this.hint());
    this.set(null);
  }

  // Two curves: the place that is shown, and the highest of all patches of the grid.
  follow(state) {
    const { data, part, found } = this;
    part.findCurve.toggleAttribute("hidden", !found);
    part.findKey.hidden = !found;
    if (!found) return;
    const of = (row) => Float32Array.from({ length: data.L }, (_, l) => found.values[l * data.T + row]);
    const best = new Float32Array(data.L).fill(NaN);
    for (const row of data.grids[state.grid].positions) {
      for (let l = 0; l < data.L; l++) {
        const v = found.values[l * data.T + row];
        if (v > best[l] || (Number.isNaN(best[l]) && !Number.isNaN(v))) best[l] = v;
      }
    }
    const here = of(state.readRow);
    drawCurve(
      part.findCurve,
      data,
      [
        { values: best, className: "view-b" },
        { values: here, className: "view-a" },
      ],
      state.shownLayer,
    );
    const say = (v) => (Number.isNaN(v) ? `not in the top ${data.k}` : data.figure(v));
    const key = (name, cls, v) => {
      const span = el("span", `lens-key-line ${cls}`, `${name} `);
      span.append(el("b", "", say(v)));
      return span;
    };
    part.findKey.replaceChildren(key("here", "view-a", here[state.shownLayer]), key("highest patch", "view-b", best[state.shownLayer]));
    part.findCurve.setAttribute(
      "aria-label",
      `${data.similar ? "Similarity" : "Probability"} of ${found.word} over the layers: here ${say(here[state.shownLayer])}, highest patch ${say(best[state.shownLayer])}`,
    );
  }
}
