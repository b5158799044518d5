// Mounts the concepts view: one state, the controls that change it, and one render that brings every part up to date. A host calls
// mount(element, options) and set(payload). Options, each optional: conceptDetails(run, concept) and steerConcepts(run, {source, target, value, where})
// ask the server; chose({concept, target, value, where}) is told what the reader looks at.

import { Asker } from "../shared/asker.js";
import { captioned } from "../shared/caption.js";
import { el, radios, saveFile } from "../shared/elements.js";
import { page } from "../shared/page.js";
import { placeName } from "../shared/payload.js";
import { PictureShell } from "../shared/shell.js";
import { Stage } from "../shared/stage.js";
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
    this.controls(signal);
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
    this.data = data;
    this.picture = picture;
    this.asker = new Asker(signal);
    this.key = {};
    this.known = new Map();
    const order = data.shift ? "moved" : "here";
    const { look } = data.payload;
    this.state = {
      ready: true,
      run: data.run,
      order,
      concept: look?.concept ?? data.ordered(order)[0].concept,
      grid: data.finest,
      view: "picture",
      hover: null,
      locked: null,
      shownRow: null,
      cursor: data.grids[data.finest].positions[0] ?? null,
    };
    this.root.__concepts = this.state;
    part.empty.hidden = true;
    part.body.hidden = false;
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

  controls(signal) {
    const { part } = this;
    const on = (node, type, fn) =>
      node.addEventListener(
        type,
        (event) => {
          if (this.data && this.cards) fn(event);
        },
        { signal },
      );
    on(part.png, "click", () => this.download());
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

  accent() {
    return getComputedStyle(this.root).getPropertyValue("--accent").trim() || "#0b6bcb";
  }

  // At most once a frame. Parts whose inputs have not changed are left alone.
  render(size = false) {
    if (!this.data || !this.cards) return;
    this.sized = this.sized || size;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.data && this.cards) this.paint();
    });
  }

  changed(name, ...inputs) {
    const before = this.key[name];
    this.key[name] = inputs;
    return !before || inputs.some((value, i) => value !== before[i]);
  }

  paint() {
    const { state, data, part, picture, selected } = this;
    const width = part.frame.clientWidth;
    if (!width) return; // in a tab that is not shown; the ResizeObserver calls again
    state.shownRow = state.hover ?? state.locked;
    const fresh = this.changed("size", state.view, state.grid) || this.sized;
    this.sized = false;
    if (fresh) picture.fit(width, Math.max(260, innerHeight * 0.5), state, Math.min(3, devicePixelRatio || 1));
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

// Mount the view on the element that holds view.html; the host then calls set(payload).
export function mount(element, options = {}) {
  const root = element.querySelector("[data-part=root]");
  root.__view?.destroy();
  root.__view = new View(root, options);
  return root.__view;
}

Object.assign(page, { mountConcepts: mount });
