// Mounts the concepts view: one state, the controls that change it, and one render that brings every part up to date. A host calls
// mount(element, options) and set(payload). Options, each optional: conceptDetails(run, concept) and steerConcepts(run, {source, target, value, where})
// ask the server; chose({concept, target, value, where}) is told what the reader looks at.

import { Asker } from "../shared/asker.js";
import { captioned } from "../shared/caption.js";
import { el, radios, saveFile } from "../shared/elements.js";
import { page } from "../shared/page.js";
import { placeName } from "../shared/payload.js";
import { mounting, PictureShell } from "../shared/shell.js";
import { places, Stage } from "../shared/stage.js";
import { pictureSwitches } from "../shared/switches.js";
import { amount, plural, share } from "../shared/text.js";
import { Cards } from "./cards.js";
import { ConceptData } from "./data.js";
import * as Detail from "./detail.js";
import { ConceptPicture } from "./picture.js";
import { Shift } from "./shift.js";
import { Step } from "./step.js";
import * as say from "./text.js";

/** @type {[string, string][]} */
const ORDERS = [
  ["here", "on your picture"],
  ["size", "size"],
  ["moved", "moved"],
];
const SILENCE = "The server could not compute this. Press Run and try again.";

/** @extends {PictureShell<ConceptData, ConceptPicture>} */
class View extends PictureShell {
  constructor(root, options) {
    super(root, options, {
      state: "__concepts",
      Data: ConceptData,
      Picture: ConceptPicture,
      empty: "No concepts yet. Choose a picture and press Run.",
      unreadable: "The picture in this view could not be read.",
    });
    const { signal } = this.page;
    this.step = new Step(
      this.part,
      {
        ask: (request) => this.asker.ask("steer", () => this.options.steerConcepts(this.state.run, request), SILENCE),
        changed: () => this.told(),
      },
      signal,
    );
    this.shift = new Shift(this.part, { select: (concept) => this.select(concept), signal });
    this.listen(this.part.png, "click", () => this.download());
    this.set(null);
  }

  clear() {
    super.clear();
    this.cards = null;
  }

  /**
   * @param {ConceptData} data
   * @param {ConceptPicture} picture
   * @param {AbortSignal} signal
   */
  begin(data, picture, signal) {
    const { part, options } = this;
    this.asker = new Asker(signal);
    this.known = new Map();
    const order = data.shift ? "moved" : "here";
    const { look } = data.payload;
    const concept = look?.concept ?? data.ordered(order)[0].concept;
    this.open(data, picture, { ready: true, run: data.run, order, concept, ...places(data) });
    this.cards = new Cards(data, part, { select: (concept) => this.select(concept), signal });
    this.stage = new Stage(data, picture, this.state, part, {
      render: () => this.render(),
      said: (row) =>
        `${placeName(data, row)}: ${data
          .strongest(row, 2)
          .map((concept) => data.name(concept))
          .join("; ")}`,
      root: this.root,
      signal,
    });
    this.step.begin(data, Boolean(options.steerConcepts));
    this.shift.begin(data);
    this.texts();
    pictureSwitches(part, `concepts-view-${this.serial}`, data, this.state, () => this.render(true), signal);
    this.cards.draw(order);
    this.choose(this.state.concept);
    if (look) this.step.set(look);
    this.render(true);
  }

  // Texts and switches that change only with the payload.
  texts() {
    const { part, data, state } = this;
    const { payload } = data;
    const { dictionary } = payload;
    part.prompt.textContent = payload.prompt;
    part.answer.textContent = payload.answer;
    part.facts.textContent = `${payload.model} · ${plural(data.concepts.length, "concept")} by ${dictionary.method} · layer ${dictionary.layer} · ${dictionary.where}, ${plural(dictionary.states, "state")}`;
    part.notes.replaceChildren(...[...dictionary.notes, ...payload.notes].map((note) => el("span", "view-chip", note)));
    part.about.textContent = dictionary.about;
    part.fit.textContent =
      `The concepts leave ${share(dictionary.fit.learned)} of the variance of these states unexplained (${share(dictionary.fit.zero)} of their size, the mean included), and ` +
      `${share(dictionary.fit.here)} of the variance of your picture's patches. Stability over seeds: ${say.figure(data.stability.middle)} in the middle, ` +
      `lowest ${say.figure(data.stability.lowest)}.` +
      `${dictionary.overlap === null ? "" : ` They share ${share(dictionary.overlap)} of their words.`} Minimised: ${dictionary.objective}.`;
    part.limits.textContent = payload.limits;
    const orders = data.shift ? ORDERS : ORDERS.slice(0, 2);
    radios(part.order, `concepts-order-${this.serial}`, orders, state.order, (key) => {
      state.order = key;
      this.cards.draw(key);
    });
  }

  get drawable() {
    return Boolean(this.data && this.cards);
  }

  get selected() {
    return this.data.concepts[this.state.concept];
  }

  // By the reader: what changes is brought into sight and said.
  select(concept) {
    const { part, data } = this;
    this.choose(concept);
    this.told();
    part.live.textContent = part.cards.querySelector(`[data-concept="${concept}"]`)?.getAttribute("aria-label") ?? data.name(this.selected);
    this.reveal();
  }

  told() {
    this.options.chose?.({ concept: this.state.concept, ...this.step.said });
  }

  choose(concept) {
    const { state, part, data, cards } = this;
    state.concept = concept;
    cards.mark(concept);
    Detail.card(part, data, this.selected);
    this.step.from(this.selected, cards.order);
    this.shift.select(concept);
    this.near(concept);
    this.render();
  }

  async near(concept) {
    const { asker, options, state, part, known } = this;
    asker.cancel("near");
    part.nearBox.hidden = !options.conceptDetails && !known.has(concept);
    if (known.has(concept)) return Detail.near(part, known.get(concept));
    if (!options.conceptDetails) return;
    part.near.replaceChildren();
    part.nearNote.textContent = "Looking them up …";
    const out = await asker.ask("near", () => options.conceptDetails(state.run, concept), SILENCE);
    if (!out) return;
    part.nearNote.classList.toggle("view-bad", Boolean(out.error));
    if (out.error) {
      part.nearNote.textContent = out.error;
      return;
    }
    known.set(concept, out.answer);
    Detail.near(part, out.answer);
  }

  async download() {
    const { state, data, picture, selected } = this;
    const { dictionary, model } = data.payload;
    const lines = [
      [`${data.name(selected)} · concept ${selected.concept}`, null],
      [`${amount(selected.low)} to ${amount(selected.top)}`, "ramp"],
      [`${plural(data.concepts.length, "concept")} by ${dictionary.method} · layer ${dictionary.layer} · ${model}`, null],
    ];
    saveFile(await captioned(picture, state, lines, this.accent()), `concept-${selected.concept}.png`);
  }

  paint() {
    const { state, data, part, picture, selected } = this;
    const fresh = this.fitted(0.5);
    if (fresh === null) return;
    state.shownRow = state.hover ?? state.locked;
    if (this.changed("map", state.concept, state.grid) || fresh) {
      picture.drawBase(state);
      Detail.scale(part, data, state.grid, selected);
    }
    picture.drawMarks(state, this.accent());
    const row = state.shownRow ?? selected.peakRow;
    if (this.changed("here", row)) Detail.here(part, data, row);
    this.root.dataset.ready = "true";
  }
}

export const mount = mounting(View);

Object.assign(page, { mountConcepts: mount });
