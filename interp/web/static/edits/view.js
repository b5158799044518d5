// Mounts the editor of steering edits: the list of edits, and the ways to fill it (presets, a search, features that another view hands over).
// A host calls mountEdits(element, options) and set(payload). Options, each optional: steerable(text, run) answers searches; changed(payload) gets the
// payload after every change, a little later during a drag; run() is called when an answer is wanted.

import { OUTLINES } from "../shared/colours.js";
import { page } from "../shared/page.js";
import { mounting, Shell } from "../shared/shell.js";
import { plural } from "../shared/text.js";
import { EditCard } from "./chip.js";
import { EditsData } from "./data.js";
import * as Edit from "./edit.js";
import * as Lists from "./lists.js";
import { Picker } from "./patches.js";
import { EditSearch } from "./search.js";

const PAUSE = 150; // ms between two reports while a value is dragged
const REPEAT = 1000; // ms in which the same payload is ignored: gradio delivers the last value of a generator twice

/** @extends {Shell<EditsData>} */
class View extends Shell {
  constructor(root, options) {
    super(root, options);
    const { part } = this;
    const { signal } = this.page;
    this.state = null;
    this.cards = [];
    this.open = null;
    this.handed = [];
    this.before = null;
    this.shown = {};
    this.dirty = false;
    this.told = new Set();
    if (page.waitingEdit) this.handed.push(page.waitingEdit);
    page.waitingEdit = null;
    const on = (node, type, fn) => node.addEventListener(type, fn, { signal });
    this.search = new EditSearch(part, options, this.serial, {
      signal,
      run: () => this.state.run,
      has: (found) => Boolean(this.find(found)),
      pick: (found) => this.add([Edit.fresh(found)]),
      pickAll: (chips, name) => this.addAll(chips, name),
    });
    this.picker = new Picker(part, { signal, choose: (where) => this.open.chosen(where), close: () => this.unpick(true) });
    on(part.presets, "click", (event) => {
      const { index } = event.target.closest("button")?.dataset || {};
      if (index !== undefined) this.preset(this.data.presets[+index]);
    });
    on(part.undo, "click", () => this.undo());
    this.takes("llava:steer", (detail) => this.hand([detail]));
    this.set(null);
  }

  destroy() {
    clearTimeout(this.timer);
    super.destroy();
  }

  // Show a payload; null shows the empty state. Cards of the same features stay, and with them the focus.
  set(payload) {
    const { part, root } = this;
    clearTimeout(this.timer);
    const text = JSON.stringify(payload);
    const again = text === this.came?.text && performance.now() - this.came.at < REPEAT;
    if (again && this.touched) return this.tell();
    let data = null;
    try {
      if (payload) data = new EditsData(payload);
    } catch (error) {
      return this.nothing(error.message, true);
    }
    if (!data) return this.nothing("No features to steer yet.");
    const old = this.data?.payload;
    const newer = this.newer(data);
    if (newer) Object.assign(data, newer);
    const changed = JSON.stringify(this.state?.edits) !== JSON.stringify(data.edits);
    if (changed || JSON.stringify(old?.scene) !== JSON.stringify(payload.scene)) this.unpick();
    if (old?.run !== payload.run) this.search.clear();
    if (changed && !newer) this.remember(null);
    this.data = data;
    this.dirty = false;
    this.touched = false;
    this.told = new Set([Edit.plain(data.edits)]);
    this.state = root.__edits = { ready: true, run: data.run, edits: data.edits, swept: data.swept, picking: null };
    part.empty.hidden = true;
    part.body.hidden = false;
    this.words();
    this.render();
    root.dataset.ready = "true";
    this.came = { text, at: performance.now() };
    if (newer) this.tell();
    this.hand(this.handed.splice(0));
  }

  nothing(text, bad) {
    this.unpick();
    // The cards go too: they remember other units' values and chosen patches.
    for (const card of this.cards.splice(0)) card.node.remove();
    this.data = null;
    this.state = null;
    this.came = null;
    this.dirty = false;
    this.touched = false;
    this.root.__edits = { ready: false };
    delete this.root.dataset.ready;
    this.message(text, bad);
  }

  // A payload of another run whose edits are older than the newest changes was made before them: the changes stay, and take from it only
  // where their features are active.
  newer({ run, edits }) {
    const { state, told } = this;
    if (!state || run === state.run || !told.has(Edit.plain(edits)) || Edit.plain(edits) === Edit.plain(state.edits)) return null;
    return { edits: Edit.renewed(state.edits, edits), swept: state.swept };
  }

  // Texts and buttons that change only with the payload.
  words() {
    const { part, data } = this;
    const { model, sae, presets, published } = data.payload;
    part.facts.textContent = sae
      ? `${model} · ${sae.name} · layer ${sae.layer} · ${plural(sae.features, "feature")}`
      : `No sparse autoencoder (SAE) is known for ${model}, so it has no features to search. From Python you can steer with contrast vectors instead.`;
    part.search.hidden = !sae || !this.options.steerable;
    if (this.changed("presets", presets)) Lists.presets(part, presets);
    part.presetBox.hidden = !presets.length;
    if (this.changed("published", published)) Lists.published(part, published);
    part.published.hidden = !published.length;
  }

  changed(name, value) {
    const text = JSON.stringify(value);
    const other = this.shown[name] !== text;
    this.shown[name] = text;
    return other;
  }

  find(chip) {
    return this.cards.find((card) => Edit.sameFeature(card.chip, chip));
  }

  // The cards in the order of the edits. A card stays with its feature, so that dragging and typing go on.
  render() {
    const { part, state, root } = this;
    if (!state) return;
    const free = [...this.cards];
    this.cards = state.edits.map((chip) => {
      const at = free.findIndex((card) => Edit.sameFeature(card.chip, chip));
      return at < 0 ? this.card() : free.splice(at, 1)[0];
    });
    if (free.includes(this.open)) this.unpick();
    for (const card of free) card.node.remove();
    this.cards.forEach((card, i) => {
      if (part.list.children[i] !== card.node) part.list.insertBefore(card.node, part.list.children[i] ?? null);
    });
    this.cards.forEach((card, i) => {
      this.draw(card, i);
    });
    state.picking = this.open ? this.cards.indexOf(this.open) : null;
    if (this.open) this.picker.draw(colour(state.picking));
    root.classList.toggle("edits-none", !state.edits.length);
    part.presetKey.textContent = state.edits.length ? "or start from" : "Start from one of these:";
    if (this.pointed && root.clientWidth) {
      const card = this.pointed;
      this.pointed = null;
      card.slider.focus({ preventScroll: true });
      card.node.scrollIntoView({ block: "nearest" });
    }
  }

  draw(card, i) {
    const { state, data, open } = this;
    const chip = state.edits[i];
    card.draw(chip, {
      colour: colour(i),
      swept: i === state.swept,
      several: state.edits.length > 1,
      pickable: data.grids.some(({ rows }) => rows > 0),
      problem: data.problem(chip),
      picking: card === open,
    });
  }

  card() {
    return new EditCard(`edits-${this.serial}`, {
      change: (card, fields, dragging) => this.change(card, fields, dragging),
      settle: () => {
        if (this.dirty) this.tell();
      },
      run: () => this.options.run?.(),
      remove: (card) => this.remove(card),
      copy: (card) => this.copy(card),
      sweep: (card) => {
        this.state.swept = this.cards.indexOf(card);
        this.tell();
      },
      choose: (card) => this.pick(card),
      place: (card) => {
        if (card === this.open) this.unpick();
      },
    });
  }

  change(card, fields, dragging) {
    const { state } = this;
    const i = this.cards.indexOf(card);
    state.edits[i] = { ...state.edits[i], ...fields };
    this.draw(card, i);
    this.tell(dragging);
  }

  // The host gets copies, so what it has does not change afterwards.
  tell(soon = false) {
    clearTimeout(this.timer);
    this.dirty = soon;
    this.touched = true;
    if (soon) {
      this.timer = setTimeout(() => this.tell(), PAUSE);
      return;
    }
    const { edits, swept } = this.state;
    this.told.add(Edit.plain(edits));
    this.data.payload = { ...this.data.payload, edits: structuredClone(edits), swept };
    this.options.changed?.(this.data.payload);
  }

  // Replace the edits: `said` tells why, and Undo restores the previous ones.
  replace(edits, swept, said) {
    const { state } = this;
    const { edits: old, swept: oldSwept } = state;
    Object.assign(state, { edits, swept });
    this.render();
    this.remember(old.length ? { edits: old, swept: oldSwept } : null);
    this.say(said);
    this.tell();
  }

  remember(before) {
    this.before = before;
    this.part.undo.hidden = !before;
    if (!before) this.say("");
  }

  undo() {
    const { edits, swept } = this.before;
    this.remember(null);
    Object.assign(this.state, { edits, swept });
    this.point(null);
    this.say(`${plural(edits.length, "edit")} restored.`);
    this.tell();
  }

  preset({ name, edits }) {
    this.replace(structuredClone(edits), 0, `“${name}”: ${plural(edits.length, "edit")} in the list.`);
    this.options.run?.();
  }

  // Features already in the list are pointed at. The host is told once.
  add(chips) {
    let added = false;
    for (const chip of chips) {
      const known = this.find(chip);
      const words = `${Edit.name(chip)}, feature ${chip.feature}`;
      if (!known) {
        this.remember(null);
        this.state.edits.push(chip);
        this.render();
        added = true;
      }
      this.say(known ? `${words}, is already in the list.` : `Added ${words}.`);
      this.point(known ?? this.cards.at(-1));
    }
    if (added) this.tell();
  }

  // Add all features of one name, as the host made them, and ask for an answer. Undo restores the previous edits.
  addAll(chips, name) {
    const { edits, swept } = this.state;
    const added = chips.filter((chip) => !this.find(chip));
    if (!added.length) return this.say(`All features named ${name} are already in the list.`);
    this.replace([...edits, ...added], swept, `Added ${plural(added.length, "feature")} named ${name}, switched off on the image tokens.`);
    this.options.run?.();
  }

  // Duplicate an edit at a place where the feature has none.
  copy(card) {
    const { state } = this;
    const i = this.cards.indexOf(card),
      chip = state.edits[i];
    const taken = state.edits.filter((other) => Edit.sameFeature(other, chip)).map(({ where }) => where);
    const [where] = Edit.PLACES.map(([key]) => key).filter((key) => !taken.includes(key));
    if (!where) return this.say(`${Edit.name(chip)} already has an edit for every place; choose patches for one of them first.`);
    this.remember(null);
    state.edits.splice(i + 1, 0, { ...structuredClone(chip), where });
    if (state.swept > i) state.swept += 1;
    this.render();
    this.say(`Added ${Edit.name(chip)} again, ${Edit.placeWords(where)}.`);
    this.point(this.cards[i + 1]);
    this.tell();
  }

  remove(card) {
    const { state, part } = this;
    const i = this.cards.indexOf(card),
      gone = state.edits[i];
    const left = state.edits.filter((_, j) => j !== i);
    if (card === this.open) this.unpick();
    card.node.remove();
    this.cards.splice(i, 1);
    const swept = state.swept > i || state.swept === left.length ? Math.max(0, state.swept - 1) : state.swept;
    this.replace(left, swept, `Removed ${Edit.name(gone)}, feature ${gone.feature}.`);
    (this.cards[Math.min(i, left.length - 1)]?.remove ?? part.undo).focus();
  }

  // Features that another view hands over; without a payload they wait for the next one.
  hand(details) {
    if (!this.state) {
      this.handed.push(...details);
      return;
    }
    const { sae } = this.data.payload;
    try {
      this.add(
        details.map(({ sae: of, layer, feature, label, max, active }) =>
          Edit.check(
            Edit.fresh({ sae: of, layer: layer ?? (of === sae?.name ? sae.layer : null), feature, label, max, active }),
            "what was handed over",
          ),
        ),
      );
    } catch (error) {
      this.say(error.message);
    }
  }

  pick(card) {
    const { data, state } = this;
    this.unpick();
    this.open = card;
    this.render();
    const i = this.cards.indexOf(card),
      { where, active } = state.edits[i];
    this.picker.open(card.node, data.payload.scene, { where, words: Edit.placeWords(where), active, colour: colour(i) });
  }

  unpick(back = false) {
    const card = this.open;
    if (!card) return;
    this.open = null;
    this.picker.close();
    this.render();
    if (back) card.where.focus();
  }

  // Lead the reader to a card, as soon as the view is visible.
  point(card) {
    this.pointed = card;
    this.render();
  }

  say(text) {
    this.part.said.textContent = text;
  }
}

function colour(i) {
  return OUTLINES[i % OUTLINES.length];
}

export const mount = mounting(View);

page.mountEdits = mount;
