// The word that is explained and the one it is compared with: chips of the answer, with a feature's score above each if one is followed over the
// answer; buttons for the likeliest other words, and a field for any other.
/** @import { AttributionData, Tracked, Word } from "./data.js" */
import { Chips } from "../shared/chips.js";
import { el, tokenElement } from "../shared/elements.js";
import { look } from "../shared/text.js";
import * as say from "./text.js";

export class Words {
  // on: {word(token), against(baseline)}
  constructor(part, on, signal) {
    this.part = part;
    this.on = on;
    this.chips = new Chips(part.words, { choose: (i) => on.word(i), point: () => {} }, signal);
    part.others.addEventListener(
      "click",
      (event) => {
        const { word } = event.target.closest("button")?.dataset ?? {};
        if (word !== undefined) on.against(word);
      },
      { signal },
    );
    part.against.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        const word = part.other.value.trim();
        if (word) on.against(word);
      },
      { signal },
    );
  }

  /**
   * `asks`: whether other words can be asked for; `known`: the words that can be shown without asking.
   * @param {AttributionData} data
   * @param {number} at
   * @param {Tracked | null} tracked
   */
  draw(data, at, tracked, asks) {
    const { part } = this;
    const known = new Set([...data.words.values()].map(({ spec }) => spec.token));
    this.chips.draw(data.answer, {
      at,
      end: data.end,
      name: tracked ? (shown, i) => `${shown.text}: ${say.signed(tracked.scores[i])}` : undefined,
      dress: (node, i) => {
        node.classList.toggle("attribution-absent", !asks && !known.has(i));
        if (!tracked) return;
        const value = tracked.scores[i];
        const column = el("span", "attribution-column"),
          fill = el("i", value < 0 ? "attribution-down" : "attribution-up");
        fill.style.height = `${(50 * Math.abs(value)) / tracked.top}%`;
        fill.style[value < 0 ? "top" : "bottom"] = "50%";
        column.append(fill);
        node.title = `${say.signed(value)} against “${look(tracked.others[i]).text}”`;
        node.prepend(column);
      },
    });
    part.trackedBox.hidden = !tracked;
    if (!tracked) return;
    const most = tracked.scores.reduce((best, v, i) => (Math.abs(v) > Math.abs(tracked.scores[best]) ? i : best), 0);
    part.trackedSaid.replaceChildren(
      el("b", "", data.name(tracked.lines[0])),
      " in every word, against the likeliest other one: estimated, in logits. Most in ",
      tokenElement(look(data.answer[most])),
      `, ${say.signed(tracked.scores[most])}; a full bar is ${say.signed(tracked.top).slice(1)}.`,
    );
  }

  /** @param {Word} word */
  compared(word, asks) {
    const { part } = this;
    const { raw, spec } = word;
    const listed = raw.others.some(({ text }) => text === raw.other);
    const all = listed ? raw.others : [{ text: raw.other, probability: null }, ...raw.others];
    part.others.replaceChildren(
      ...all.map(({ text, probability }) => {
        const button = el("button");
        button.type = "button";
        // The likeliest is the default: asked for by no name.
        button.dataset.word = text === raw.others[0]?.text ? "" : text;
        button.setAttribute("aria-pressed", String(text === raw.other));
        button.disabled = !asks && text !== raw.other;
        button.append(tokenElement(look(text)));
        if (probability !== null) button.append(el("small", "", say.chance(probability)));
        return button;
      }),
    );
    part.other.disabled = !asks;
    if (document.activeElement !== part.other) part.other.value = spec.baseline && !listed ? spec.baseline : "";
    part.other.removeAttribute("aria-invalid");
  }
}
