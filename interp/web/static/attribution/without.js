// "What if these features were not there?": the answer without the features that raised the word most, beside the plain one.
/** @import { AttributionData, Word } from "./data.js" */
import { markedSide } from "../shared/diff.js";
import { el, tokenElement } from "../shared/elements.js";
import { look, plural } from "../shared/text.js";
import * as say from "./text.js";

const NAMED = 8; // features named one by one
const USUAL = 5;

export class Without {
  // host: {ask(features)}: the server's answer, an error, or null if it came too late
  constructor(part, host, signal) {
    this.part = part;
    this.host = host;
    this.count = USUAL;
    part.slider.addEventListener(
      "input",
      () => {
        this.count = +part.slider.value;
        this.say("");
        this.which();
      },
      { signal },
    );
    part.ablate.addEventListener("click", () => this.go(), { signal });
  }

  /**
   * @param {AttributionData} data
   * @param {Word} word
   */
  draw(data, word, asks) {
    const { part } = this;
    const raising = data.raising(word);
    this.data = data;
    this.word = word;
    part.without.hidden = !asks || !raising.length;
    part.slider.max = String(raising.length);
    part.slider.value = String(Math.min(this.count, raising.length));
    this.say("");
    this.show(null);
    this.which();
  }

  get chosen() {
    return this.data.raising(this.word, +this.part.slider.value);
  }

  which() {
    const { part, chosen, data } = this;
    part.sliderSaid.textContent = `the top ${chosen.length}`;
    const names = chosen.slice(0, NAMED).map((line) => data.name(line));
    part.withoutWhich.textContent = `Switched off everywhere: ${names.join(", ")}${chosen.length > NAMED ? ` and ${chosen.length - NAMED} more` : ""}: those that raised the word most, by the estimate.`;
  }

  async go() {
    const { part, host, chosen } = this;
    part.ablate.disabled = true;
    this.say("Answering without these features …");
    const out = await host.ask(chosen.map(({ feature }) => feature));
    part.ablate.disabled = false;
    if (!out) return;
    this.say(out.error ?? "", Boolean(out.error));
    if (!out.error) this.show(out.answer);
  }

  say(text, bad = false) {
    this.part.withoutNote.textContent = text;
    this.part.withoutNote.classList.toggle("view-bad", bad);
  }

  show(found) {
    const { part, data, word } = this;
    part.withoutResult.hidden = !found;
    if (!found) return;
    for (const [node, side, answer] of [
      [part.before, "plain", found.plain],
      [part.after, "steered", found.changed],
    ]) {
      node.replaceChildren(...(answer.text ? markedSide(found.diff, side) : [el("span", "view-dim", "(empty answer)")]));
    }
    part.afterKey.textContent = `without ${plural(found.features.length, "feature")}`;
    part.odds.replaceChildren(
      "Probability of ",
      tokenElement(look(data.answer[word.spec.token])),
      ` after the same words: ${say.chance(found.before)} → `,
      el("b", "", say.chance(found.after)),
      found.plain.text === found.changed.text ? ". The answer stays the same." : ".",
    );
  }
}
