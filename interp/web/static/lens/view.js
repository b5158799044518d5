// Mounts the view: one state, the controls that change it, and one render that brings every part up to date.
// A host calls mount(element, {findWord, readLens, wordMap, chose, features, why}) and set(payload).
// `findWord(word, method, payload)`, `readLens(method, payload)` and `wordMap(spec, payload)` ask the server; `chose(what)` is told what is looked at.
// `features(row, payload)` shows the features of a position, `why(token, payload)` explains a token of the answer; `hasFeatures()` and `hasWhy()` say
// whether the page can. All may be absent.

import { captioned } from "../shared/caption.js";
import { el, radios, saveFile } from "../shared/elements.js";
import { featuresTab, openFeatures, openWhy, page, whyTab } from "../shared/page.js";
import { placeName } from "../shared/payload.js";
import { mounting, PictureShell } from "../shared/shell.js";
import { pictureSwitches } from "../shared/switches.js";
import { ActivationMap } from "./activation.js";
import { LensData } from "./data.js";
import { Find } from "./find.js";
import { caption, drawBar, drawBest, drawLegend } from "./legend.js";
import { ACTIVATION_MAP, Methods } from "./methods.js";
import { LensPicture } from "./picture.js";
import { drawReadout } from "./readout.js";
import { TokenTable } from "./table.js";

/** @type {import("./activation.js").WordMap} */
const NO_MAP = { token: -1, values: new Map(), top: 0, note: "" }; // while it is computed

/** @extends {PictureShell<LensData, LensPicture>} */
class View extends PictureShell {
  constructor(root, options) {
    super(root, options, {
      state: "__lens",
      Data: LensData,
      Picture: LensPicture,
      empty: "Nothing to look at yet. Choose a picture and press Run.",
      unreadable: "The picture in this lens could not be read.",
    });
    const redraw = () => {
      this.render();
      this.tell();
    };
    this.activation = new ActivationMap(this.part, redraw, this.page.signal);
    this.set(null);
  }

  clear() {
    super.clear();
    this.table = this.find = this.methods = null;
  }

  /**
   * @param {LensData} data
   * @param {LensPicture} picture
   * @param {AbortSignal} signal
   */
  begin(data, picture, signal) {
    const { part, options } = this;
    const { payload } = data;
    const layer = payload.default;
    const state = {
      ready: true,
      run: payload.run ?? null,
      method: data.method,
      map: null,
      layer,
      shownLayer: layer,
      preview: null,
      hide: 0,
      min: -Infinity,
      colour: "probability",
      grid: data.finest,
      view: "picture",
      mask: false,
      hover: null,
      locked: payload.locked,
      shownRow: null,
      readRow: payload.locked ?? data.strongest(layer, data.finest),
      patch: null,
      outlined: [],
      found: null,
    };
    state.patch = state.readRow;
    this.open(data, picture, state);
    this.root.dataset.mode = "lens";
    const { findWord, readLens, wordMap } = options;
    const map = Boolean(wordMap) && data.kinds.includes("a") && data.place.size > 0;
    if (map) this.activation.begin(data, (token) => wordMap({ method: ACTIVATION_MAP.key, token }, payload), signal);
    this.methods = new Methods(
      data,
      part,
      {
        read: readLens ? (method) => readLens(method, payload) : null,
        show: (other) => this.through(other),
        map: () => this.showMap(),
      },
      { name: `lens-method-${this.serial}`, map, signal },
    );
    this.words();
    this.controls(signal);
    const find = findWord ? (word, method) => findWord(word, method, payload) : null;
    this.find = new Find(data, part, find, (found) => this.setFound(found), signal);
    part.scroller.scrollTop = part.scroller.scrollLeft = 0;
    this.table = new TokenTable(data, part, {
      signal,
      point: (row, at, keys) => this.point(row, at, keys),
      pick: (row, at) => this.pick(row, at),
    });
    this.render(true);
    this.tell();
  }

  // Another lens on the same run: place, layer, lock and the word searched for stay.
  through(data) {
    const { state, part } = this;
    const before = this.data;
    const outlined = state.outlined.map((id) => data.vocab.indexOf(before.vocab[id])).filter((id) => id >= 0);
    const layer = data.layerAt(before.layers[state.layer]);
    this.data = this.picture.data = data;
    this.key = {};
    Object.assign(state, { method: data.method, map: null, layer, preview: null, outlined });
    if (data.similar !== before.similar) state.hide = part.min.value = 0;
    this.root.dataset.mode = "lens";
    part.layer.max = data.L - 1;
    part.layer.value = layer;
    this.words();
    this.colours();
    this.table.through(data);
    this.find.through(data);
    this.render(true);
    this.announce();
    this.tell();
  }

  // The activation map of a word: no lens, so that the lens before stays as it was.
  showMap() {
    const { state } = this;
    Object.assign(state, { method: ACTIVATION_MAP.key, preview: null });
    this.root.dataset.mode = "map";
    this.key = {};
    this.activation.go();
    this.render(true);
  }

  // The host keeps what is looked at, for links, files and code.
  tell() {
    const { state, data, methods } = this;
    const { model } = data.payload;
    const token = state.method === ACTIVATION_MAP.key ? this.activation.chips.chosen : null;
    this.options.chose?.({ model, method: state.method, layer: data.layers[state.layer], row: state.locked, token, read: methods.read });
  }

  // Texts that change only with the payload and the lens.
  words() {
    const {
      part,
      data: { payload, L, T, next, firstAt },
    } = this;
    part.prompt.textContent = payload.prompt;
    part.answer.textContent = payload.answer || "(no answer)";
    part.cut.hidden = payload.finished;
    part.facts.textContent = `${payload.model} · ${T} positions · ${L} states`;
    part.notes.replaceChildren(...[...payload.notes, payload.note].filter(Boolean).map((note) => el("span", "view-chip", note)));
    part.why.textContent = payload.why_default;
    part.limits.textContent = payload.limits;
    this.root.dataset.reads = payload.reads;
    part.tableAbout.textContent = next
      ? "the top word for the next token, read at each layer"
      : "the top word for the token itself, read at each layer";
    part.tableNote.textContent = `${firstAt ? "Marked cells: from this layer on, the last layer's word is on top. " : ""}Hover to preview a layer, click to keep it.`;
  }

  colours() {
    const { part, data, state } = this;
    /** @type {[string, string][]} */
    const entropy = data.entropyQ ? [["entropy", "Entropy"]] : [];
    if (state.colour === "entropy" && !data.entropyQ) state.colour = "probability";
    /** @type {[string, string][]} */
    const named = [["probability", data.similar ? "Similarity" : "Probability"], ...entropy, ["found", "Found word"], ["none", "None"]];
    radios(part.colour, `lens-colour-${this.serial}`, named, state.colour, (key) => {
      state.colour = key;
      this.render();
    });
  }

  controls(signal) {
    const { part, data, state } = this;
    const on = (node, type, fn) => node.addEventListener(type, fn, { signal });
    part.layer.max = data.L - 1;
    part.layer.value = state.layer;
    part.min.value = 0;
    part.mask.checked = false;
    on(part.layer, "input", () => {
      Object.assign(state, { layer: +part.layer.value, preview: null });
      this.render();
    });
    on(part.layer, "change", () => this.tell());
    on(part.best, "click", () => {
      state.layer = part.layer.value = this.data.payload.best;
      this.render();
      this.tell();
    });
    on(part.min, "input", () => {
      state.hide = +part.min.value / 100;
      this.render();
    });
    on(part.mask, "change", () => {
      state.mask = part.mask.checked;
      this.render();
    });
    this.colours();
    pictureSwitches(part, `lens-view-${this.serial}`, data, state, () => this.render(true), signal);
    on(part.pngView, "click", () => this.download("view"));
    on(part.pngMask, "click", () => this.download("mask"));
    on(part.features, "click", () => this.options.features(state.readRow, data.payload));
    on(part.explain, "click", () => this.options.why(state.readRow + 1 - data.kinds.indexOf("a"), data.payload));
    on(part.stage, "pointermove", (event) => {
      if (event.pointerType !== "touch") this.point(this.rowAt(event), null);
    });
    on(part.stage, "pointerleave", () => this.point(null));
    on(part.stage, "click", (event) => {
      const row = this.rowAt(event);
      if (row !== null) this.pick(row, null);
    });
    on(part.stage, "keydown", (event) => this.keys(event));
    on(part.legend, "click", (event) => this.toggleWord(event));
    on(this.root, "keydown", (event) => {
      if (event.key === "Escape" && state.locked !== null) {
        state.locked = null;
        this.render();
        this.announce();
        this.tell();
      }
    });
  }

  rowAt(event) {
    const index = this.picture.under(event, this.state);
    return index === null ? null : this.data.grids[this.state.grid].positions[index];
  }

  // The pointer is at a position (in the table also at a layer, to preview), or null: nowhere.
  point(row, layer = null, keys = false) {
    const { state } = this;
    if (state.hover === row && state.preview === layer) return;
    Object.assign(state, { hover: row, preview: layer });
    if (keys && state.locked !== null) state.locked = row; // the keyboard moves a lock; the mouse does not
    this.render();
    if (keys) this.announce();
  }

  // A click locks a position, a second one unlocks it. In the table it also sets the layer, and unlocks only at the same layer.
  pick(row, layer) {
    const { state } = this;
    const again = state.locked === row && (layer === null || layer === state.layer);
    if (layer !== null) {
      state.layer = layer;
      this.part.layer.value = layer;
    }
    state.locked = again ? null : row;
    if (!again) state.readRow = row;
    this.render();
    this.announce();
    this.tell();
  }

  keys(event) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const { state, data } = this;
    if ((event.key === "Enter" || event.key === " ") && state.patch !== null) {
      event.preventDefault();
      return this.pick(state.patch, null);
    }
    if (!move) return;
    event.preventDefault();
    const grid = data.grids[state.grid];
    const place = data.place.get(state.patch);
    const to = this.picture.step(state, place && place.grid === state.grid ? place.index : 0, move);
    if (to === null) return;
    const row = grid.positions[to];
    if (state.locked !== null) state.locked = row;
    Object.assign(state, { hover: row, preview: null });
    this.render();
    this.announce();
  }

  announce() {
    const { data, state } = this;
    const row = state.readRow,
      layer = state.shownLayer;
    const said = data
      .words(layer, row)
      .slice(0, 3)
      .map(({ id, p }) => `${data.look(id).text} ${data.figure(p)}`)
      .join(", ");
    const place = `${placeName(data, row)}${state.locked === null ? "" : ", locked"}`;
    this.part.live.textContent = state.map ? place : `${place}, layer ${data.layerName(layer)}: ${said}`;
  }

  toggleWord(event) {
    const id = event.target.closest("button")?.dataset.id;
    if (id === undefined) return;
    const { state } = this;
    state.outlined = state.outlined.includes(+id) ? state.outlined.filter((x) => x !== +id) : [...state.outlined, +id];
    this.render();
  }

  setFound(found) {
    const { state, part } = this;
    state.found = found;
    if (found) state.colour = "found";
    else if (state.colour === "found") state.colour = "probability";
    part.colour.querySelectorAll("input").forEach((input) => {
      input.checked = input.value === state.colour;
    });
    this.render();
  }

  async download(kind) {
    const { state, data, picture, methods, activation } = this;
    const still = { ...state, shownLayer: state.layer };
    if (kind === "mask") return saveFile(await picture.png(still), `${data.method}-lens-layer-${data.layerName(state.layer)}-masked.png`);
    const { name, lines } = caption(data, state, methods.name, state.map ? activation.word.text : "");
    saveFile(await captioned(picture, still, lines, this.accent()), name);
  }

  get drawable() {
    return Boolean(this.data && this.table);
  }

  derive() {
    const { state, data } = this;
    state.shownLayer = state.preview ?? state.layer;
    state.min = data.threshold(state.hide, state.shownLayer);
    state.map = state.method === ACTIVATION_MAP.key ? (this.activation.map ?? NO_MAP) : null;
    // A lock holds the readout; pointing elsewhere only draws an outline. A layer previewed in the table is always shown.
    state.shownRow = state.locked ?? state.hover;
    if (state.shownRow !== null) state.readRow = state.shownRow;
    if (data.place.has(state.readRow)) state.patch = state.readRow;
  }

  paint() {
    const { state, data, part, picture } = this;
    const { shownLayer, readRow, grid, found } = state;
    const fresh = this.fitted(0.72);
    if (fresh === null) return;
    const quick = [shownLayer, state.min, state.colour, grid, state.mask, found, state.map];
    if (this.changed("base", ...quick) || fresh) picture.drawBase(state);
    picture.drawMarks(state, this.accent());
    if (this.changed("bar", ...quick, state.view, state.preview)) drawBar(part, data, state);
    if (this.changed("best", state.layer)) drawBest(part, data, state);
    if (this.changed("legend", state.layer, grid, state.outlined)) drawLegend(part, data, state);
    if (this.changed("readout", readRow, shownLayer, state.locked, state.map)) {
      if (state.map) this.activation.read(readRow);
      else drawReadout(part, data, readRow, shownLayer, state.locked === readRow ? "locked" : "");
      // Checked each time: the page may gain the tab after the view.
      const { features, hasFeatures, why, hasWhy } = this.options;
      part.features.hidden = !features || Boolean(hasFeatures && !hasFeatures());
      part.explain.hidden = !why || data.kinds[state.readRow + 1] !== "a" || Boolean(hasWhy && !hasWhy());
    }
    if (this.changed("find", readRow, shownLayer, grid, found)) this.find.follow(state);
    this.table.follow(state, state.patch);
    if (this.changed("column", state.layer) && state.preview === null) this.table.revealLayer();
    this.root.dataset.ready = "true";
  }
}

export const mount = mounting(View);

Object.assign(page, { mountLens: mount, featuresTab, openFeatures, whyTab, openWhy });
