// Mounts the view: one state, the controls that change it, and one render that brings every part up to date.
// A host calls mount(element, options) and set(payload). Its options, all optional: wordMap(run, spec), testMap(run, spec), whatIf(run, request),
// fewest(run, token) and wordFlow(run, request) ask the server; chose(spec) is told which map is looked at.

import { Asker } from "../shared/asker.js";
import { captioned } from "../shared/caption.js";
import { Chips } from "../shared/chips.js";
import { el, radios, saveFile } from "../shared/elements.js";
import { gridChoices } from "../shared/grids.js";
import { page } from "../shared/page.js";
import { mounting, PictureShell } from "../shared/shell.js";
import { look, plural } from "../shared/text.js";
import { layerUnder } from "./chart.js";
import { AttentionData, mapKey } from "./data.js";
import { Flow } from "./flow.js";
import { Matrix } from "./matrix.js";
import { AttentionPicture } from "./picture.js";
import { Readout } from "./readout.js";
import { Stage } from "./stage.js";
import * as say from "./text.js";
import { WhatIf } from "./whatif.js";

const SILENCE = "The server could not compute this. Press Run and try again.";
const NO_SERVER = "This file has no model: it shows attention, and the maps that were open when it was saved.";

/** @extends {PictureShell<AttentionData, AttentionPicture>} */
class View extends PictureShell {
  constructor(root, options) {
    super(root, options, {
      state: "__attention",
      Data: AttentionData,
      Picture: AttentionPicture,
      empty: "Nothing to explain yet. Choose a picture and press Run.",
      unreadable: "The picture in this view could not be read.",
    });
    const { part } = this;
    const { signal } = this.page;
    this.chips = new Chips(part.words, { choose: (i) => this.choose({ token: i }), point: () => this.render() }, signal);
    this.matrix = new Matrix(
      part,
      { point: (layer, head, keys) => this.preview(layer, head, keys), choose: (layer, head) => this.head(this.data.layers[layer], head) },
      signal,
    );
    this.readout = new Readout(part, this.chips, this.matrix, Boolean(options.testMap));
    this.whatIf = new WhatIf(
      part,
      {
        ask: (how) => this.askWhatIf(how),
        picking: (on) => this.stage.pick(on),
        bright: (least) => this.stage.bright(least),
        clear: () => this.stage.cross([]),
        chosen: () => this.state.chosen,
        changed: () => this.render(),
        fewest: () => this.askFewest(),
      },
      this.serial,
      signal,
    );
    this.flow = new Flow(part, { ask: (window) => this.askFlow(window), word: () => this.word() }, this.serial, signal);
    this.stage = new Stage(this, signal);
    document.addEventListener("llava:word", (event) => this.handed(event), { signal });
    this.controls(signal);
    this.set(null);
  }

  /**
   * @param {AttentionData} data
   * @param {AttentionPicture} picture
   * @param {AbortSignal} signal
   */
  begin(data, picture, signal) {
    const { payload } = data;
    // Unless a link asks for another, the method stays when another picture is shown.
    const method = [payload.method, this.state?.method, payload.methods[0].key].find((key) => data.methods.has(key));
    this.asker = new Asker(signal);
    this.open(data, picture, {
      ready: true,
      run: payload.run ?? null,
      method,
      token: payload.token,
      layer: null,
      head: null,
      over: "mean",
      sinks: false,
      grid: data.finest,
      view: "picture",
      at: null,
      hover: null,
      locked: null,
      shownRow: null,
      picking: false,
      chosen: new Set(),
      cursor: null,
      map: null,
      top: 0,
      shown: null,
    });
    this.pointed = null;
    this.failed = new Map(); // errors in place of maps, and below in place of scores
    this.untested = new Map();
    this.testing = null;
    this.texts();
    this.chips.draw(data.words, { at: payload.token, end: data.end });
    this.switches();
    this.whatIf.begin(data, Boolean(this.options.whatIf), Boolean(this.options.fewest));
    this.flow.begin(data, Boolean(this.options.wordFlow));
    const waiting = page.waitingWord;
    page.waitingWord = null;
    if (waiting && data.isOf(waiting)) this.choose({ token: waiting.token });
    else this.look();
    this.render(true);
  }

  // Texts that change only with the payload.
  texts() {
    const { part, data } = this;
    const { payload, T, L, H } = data;
    part.prompt.textContent = payload.prompt;
    part.facts.textContent = `${payload.model} · ${T} positions · ${plural(L, "layer")} of ${plural(H, "head")}`;
    const short = data.RH < H ? ["heads are fetched one by one: all rows together are too large"] : [];
    part.notes.replaceChildren(...[...payload.notes, ...short].map((note) => el("span", "view-chip", note)));
    part.limits.textContent = payload.limits;
    gridChoices(part, data.grids);
  }

  switches() {
    const { part, data, state } = this;
    radios(
      part.method,
      `attention-method-${this.serial}`,
      data.payload.methods.map(({ key, name }) => /** @type {[string, string]} */ ([key, name])),
      state.method,
      (method) => this.choose({ method }),
    );
    part.grid.value = state.grid;
    part.over.value = state.over;
    part.sinks.checked = state.sinks;
  }

  controls(signal) {
    const { part } = this;
    const on = (node, type, fn) => node.addEventListener(type, fn, { signal });
    on(part.over, "change", () => this.choose({ over: part.over.value }));
    on(part.all, "click", () => this.head(null, null));
    on(part.sinks, "change", () => this.choose({ sinks: part.sinks.checked }));
    on(part.grid, "change", () => {
      Object.assign(this.state, { grid: +part.grid.value, hover: null, at: null });
      this.render(true);
    });
    on(part.png, "click", () => this.download());
    on(part.test, "click", () => this.test());
    on(part.curve, "click", (event) => this.head(this.data.layers[layerUnder(part.curve, event, this.data.L)], null));
    on(this.root, "keydown", (event) => {
      if (event.key === "Escape" && this.data) this.stage.leave();
    });
  }

  // Which map is looked at: of the word and heads pointed at, else of those chosen.
  spec(pointed = true) {
    const { state, data } = this;
    const { heads } = data.methods.get(state.method);
    const token = pointed ? this.chips.read : state.token;
    const [layer, head] = pointed && this.pointed ? [data.layers[this.pointed[0]], this.pointed[1]] : [state.layer, state.head];
    return {
      method: state.method,
      token,
      layer: heads ? layer : null,
      head: heads ? head : null,
      over: heads && head === null ? state.over : "mean",
      sinks: state.sinks || !this.readout.sinksMatter(data, state.method),
    };
  }

  choose(change) {
    if (!this.data) return;
    Object.assign(this.state, change);
    if (change.token !== undefined) {
      this.chips.choose(change.token);
      this.flow.show(null);
    }
    this.look();
    this.render();
  }

  // A map of heads, if the method has none, turns to attention.
  head(layer, head) {
    if (!this.data) return;
    const { method } = this.state;
    const inner = typeof layer === "number" && layer === this.state.layer && head === this.state.head;
    this.pointed = null;
    const heads = this.data.methods.get(method).heads ? method : this.data.payload.methods[0].key;
    this.choose({ layer: inner ? null : layer, head: inner ? null : head, method: heads });
    this.switches();
  }

  preview(layer, head, keys = false) {
    const pointed = layer === null ? null : [layer, head];
    if (!this.data || String(pointed) === String(this.pointed)) return;
    this.pointed = pointed;
    this.render();
    if (keys) this.part.live.textContent = this.readout.cell(layer, head);
  }

  // Get the chosen map from the server if it cannot be made here, then its score.
  async look() {
    const { data, options, asker } = this;
    const spec = this.spec(false);
    const key = mapKey(spec);
    options.chose?.(spec);
    asker.cancel("map");
    if (!data.map(spec)) {
      this.failed.delete(key);
      const out = options.wordMap ? await asker.ask("map", () => options.wordMap(this.state.run, spec), SILENCE) : { error: NO_SERVER };
      if (!out) return;
      if (out.error) this.failed.set(key, out.error);
      else data.learn(spec, out.answer);
      this.render();
    }
    if (data.payload.quick && data.map(spec)) this.test();
  }

  async test() {
    const { data, options, asker } = this;
    const spec = this.spec(false);
    const key = mapKey(spec);
    if (!options.testMap || data.scores.has(key) || this.testing === key) return;
    this.testing = key;
    this.untested.delete(key);
    this.render();
    const out = await asker.ask("score", () => options.testMap(this.state.run, spec), SILENCE);
    if (this.testing === key) this.testing = null;
    if (out?.error) this.untested.set(key, out.error);
    else if (out) data.scores.set(key, out.answer);
    this.render();
  }

  /** @param {string} how */
  askWhatIf(how) {
    const { state, asker, options } = this;
    return asker.ask("what", () => options.whatIf(state.run, { positions: [...state.chosen], how }), SILENCE);
  }

  // The patches found are crossed out.
  async askFewest() {
    const { state, asker, options } = this;
    const word = this.word();
    const out = await asker.ask("fewest", () => options.fewest(state.run, state.token), SILENCE);
    if (out?.answer?.positions.length) this.stage.cross(out.answer.positions);
    return out?.answer ? { ...out, word } : out;
  }

  /** @param {number} window */
  askFlow(window) {
    const { state, asker, options } = this;
    const request = { token: state.token, window, positions: [...state.chosen] };
    return asker.ask("flow", () => options.wordFlow(state.run, request), SILENCE);
  }

  word() {
    return look(this.data.words[this.state.token]).text;
  }

  // A place of the lens view that the reader wants explained.
  handed(event) {
    const { token, of } = event.detail ?? {};
    if (!this.data?.isOf({ of })) return;
    event.preventDefault();
    if (token >= 0 && token < this.data.Q) this.choose({ token });
  }

  async download() {
    const { data, state } = this;
    const spec = this.spec(false);
    const { name } = data.methods.get(spec.method);
    const score = data.scores.get(mapKey(spec));
    const tested = score ? `; insertion ${say.auc(score.insertion)} (random ${say.auc(score.random_insertion)})` : "";
    const map = data.map(spec)?.values ?? null;
    const still = { ...state, map, top: map ? Math.max(0, ...map) : 0, locked: null, cursor: null };
    const lines = [
      [`“${this.word()}”: ${this.readout.title(spec)} · 0 to ${this.readout.scale(spec, still.top)}${tested}`, "ramp"],
      [`${data.payload.model} · ${data.payload.prompt} · ${data.payload.answer}`, null],
    ];
    const word = this.word().replace(/[^\p{L}\p{N}]+/gu, "") || String(state.token);
    saveFile(await captioned(this.picture, still, lines, this.accent()), `${name.toLowerCase().replaceAll(" ", "-")}-${word}.png`);
  }

  ink() {
    const style = getComputedStyle(this.root);
    return { dim: style.getPropertyValue("--dim").trim(), fg: style.getPropertyValue("--fg").trim() };
  }

  // What is known of the chosen map, and of the test of the one that is shown.
  looked() {
    const { data, options } = this;
    const key = mapKey(this.spec(false)),
      shown = mapKey(this.state.shown);
    return {
      pointed: this.pointed,
      error: this.failed.get(key) ?? "",
      testing: this.testing === shown,
      untested: this.untested.get(shown) ?? "",
      score: data.scores.get(shown) ?? null,
      testable: shown === key && Boolean(options.testMap) && Boolean(this.state.map),
    };
  }

  // The picture itself has changed.
  repaint() {
    this.redrawn = null;
    this.render();
  }

  settle() {
    const { state, data, part } = this;
    let spec = this.spec();
    let map = data.map(spec);
    // What is only pointed at is not asked for; the chosen map stays.
    if (!map) {
      spec = this.spec(false);
      map = data.map(spec);
    }
    state.shown = spec;
    state.map = map?.values ?? null;
    state.top = map ? map.values.reduce((top, v) => Math.max(top, v), 0) : 0;
    state.note = map?.note ?? "";
    state.shownRow = state.picking ? null : (state.locked ?? state.hover);
    const keyboard = document.activeElement === part.stage && part.stage.matches(":focus-visible");
    state.cursor = state.picking && keyboard ? data.grids[state.grid].positions[state.at ?? 0] : null;
  }

  paint() {
    this.settle();
    const { state, data, part, picture, sized } = this;
    this.sized = false;
    const room = part.frame.clientWidth;
    if (!room) {
      this.sized = true; // in a tab that is not shown: the size is to be found when it is
      return;
    }
    if (sized) {
      this.flow.draw();
      picture.fit(room, Math.max(260, innerHeight * 0.62), state, Math.min(3, devicePixelRatio || 1));
      this.redrawn = null;
    }
    const key = `${mapKey(state.shown)} ${state.grid} ${Boolean(state.map)}`;
    if (key !== this.redrawn) picture.drawBase(state);
    this.redrawn = key;
    picture.drawMarks({ ...state, hover: state.picking ? null : state.hover }, this.accent());
    this.readout.draw(data, state, this.looked(), { accent: this.accent(), ...this.ink() });
    this.whatIf.follow(state.chosen, state.picking);
    part.stage.classList.toggle("attention-picking", state.picking);
    this.root.dataset.ready = "true";
  }
}

export const mount = mounting(View);

page.mountAttention = mount;
