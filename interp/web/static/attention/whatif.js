// "What if it could not see these patches?": the answer without them, beside the plain one.
/** @import { AttentionData } from "./data.js" */
import { markedSide } from "../shared/diff.js";
import { el, radios, tokenElement } from "../shared/elements.js";
import { chance, nats } from "../shared/figures.js";
import { look, plural } from "../shared/text.js";
import * as say from "./text.js";

/** @type {[string, string][]} */
const WAYS = [
  ["knockout", "cannot be read"],
  ["mean", "mean of the picture"],
  ["zero", "zero"],
];
const BRIGHT = 0.5; // of the map's maximum

// What an answer belongs to.
const key = (chosen, how) => `${how} ${[...chosen].sort((a, b) => a - b)}`;

export class WhatIf {
  // host: {ask(how), fewest(), picking(on), bright(share), clear(), chosen(), changed()}
  constructor(part, host, serial, signal) {
    this.part = part;
    this.host = host;
    this.how = "knockout";
    this.answered = null;
    const on = (node, fn) => node.addEventListener("click", fn, { signal });
    radios(part.how, `attention-how-${serial}`, WAYS, this.how, (way) => {
      this.how = way;
      host.changed();
    });
    on(part.pick, () => host.picking(part.pick.getAttribute("aria-pressed") !== "true"));
    on(part.bright, () => host.bright(BRIGHT));
    on(part.none, () => host.clear());
    on(part.tryIt, () => this.go());
    on(part.fewest, () => this.search());
  }

  /** @param {AttentionData} data */
  begin(data, asks, searches) {
    this.data = data;
    this.part.fewest.hidden = !searches;
    this.part.whatBox.hidden = !asks || !data.grids[0].positions.length;
    this.show(null);
  }

  // The patches that are chosen, and whether drawing on the picture chooses more. The answer to another choice stays, dimmed.
  follow(chosen, picking) {
    const { part, data } = this;
    const count = chosen.size;
    part.whatResult.inert = this.answered !== null && this.answered !== key(chosen, this.how);
    part.pick.setAttribute("aria-pressed", String(picking));
    part.none.disabled = part.tryIt.disabled = !count;
    part.whatCount.textContent = count
      ? `${plural(count, "patch", "patches")} crossed out on the picture.${data.grids.length > 1 ? " Other grids show the same parts: cross them out there too." : ""}`
      : picking
        ? "Click patches on the picture, or draw over several. Arrow keys, Enter and Shift work too."
        : "No patch chosen yet.";
  }

  async go() {
    const { part, host } = this;
    const asked = key(host.chosen(), this.how);
    part.tryIt.disabled = true;
    this.say("Answering without these patches …");
    const out = await host.ask(this.how);
    part.tryIt.disabled = false;
    if (!out) return;
    if (out.error) return this.say(out.error, true);
    this.show(out.answer);
    this.answered = asked;
    host.changed();
  }

  async search() {
    const { part, host } = this;
    part.fewest.disabled = true;
    this.say("Trying every patch, then the next one beside it …");
    const out = await host.fewest();
    part.fewest.disabled = false;
    if (!out) return;
    this.say(out.error ?? say.fewest(out.word, out.answer), Boolean(out.error));
  }

  say(text, bad = false) {
    this.part.whatNote.textContent = text;
    this.part.whatNote.classList.toggle("view-bad", bad);
  }

  show(found) {
    const { part, data } = this;
    part.whatResult.hidden = !found;
    this.answered = null;
    this.say("");
    if (!found) return;
    for (const [node, side, answer] of [
      [part.before, "plain", found.plain],
      [part.after, "steered", found.changed],
    ]) {
      node.replaceChildren(...(answer.text ? markedSide(found.diff, side) : [el("span", "view-dim", "(empty answer)")]));
    }
    const same = found.plain.text === found.changed.text;
    part.whatAbout.textContent = `${found.about}${same ? " The answer stays the same; the probabilities say whether anything changed." : ""}`;
    part.odds.replaceChildren(
      ...found.before.map((before, i) => {
        const item = el("li", found.after[i] < before / 2 ? "attention-fell" : "");
        item.append(
          tokenElement(look(data.words[i])),
          el("span", "", `${chance(before)} → ${chance(found.after[i])}`),
          el("small", "view-dim", `KL ${nats(found.kl[i])}`),
        );
        return item;
      }),
    );
  }
}
