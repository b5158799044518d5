// Mounts the feature view: one state, the controls that change it, and one render that brings every part up to date. A host calls
// mount(element, options) and set(payload). Options, each optional: featuresAt(where, run), findFeatures(text, run) and featureDetails(number, run)
// answer questions; steer({run, sae, layer, feature, label, max, active}), words({sae, feature}, payload) and study({study, feature}) hand a feature
// over, if hasSteer(), hasWords() and hasStudy() say that there is a tab for it.

import { Asker } from "../shared/asker.js";
import { captioned } from "../shared/caption.js";
import { OUTLINES } from "../shared/colours.js";
import { el, saveFile } from "../shared/elements.js";
import { attributionTab, openAttribution, openSteer, openStudy, page, steerTab, studyTab } from "../shared/page.js";
import { placeName } from "../shared/payload.js";
import { mounting, PictureShell } from "../shared/shell.js";
import { places } from "../shared/stage.js";
import { pictureSwitches } from "../shared/switches.js";
import { amount, look, plural } from "../shared/text.js";
import * as Card from "./card.js";
import { FeatureData } from "./data.js";
import { Listing } from "./list.js";
import { Near } from "./near.js";
import { FeaturePicture } from "./picture.js";
import { Stage } from "./stage.js";
import { FeatureTable } from "./table.js";

const LAYERS = 6;

/** @extends {PictureShell<FeatureData, FeaturePicture>} */
class View extends PictureShell {
  constructor(root, options) {
    super(root, options, {
      state: "__features",
      Data: FeatureData,
      Picture: FeaturePicture,
      empty: "No features to look at yet.",
      unreadable: "The picture of these features could not be read.",
    });
    this.handed = page.waitingPlace ?? null;
    page.waitingPlace = null;
    this.sought = page.waitingLocated ?? null;
    page.waitingLocated = null;
    this.takes("llava:patch", (detail) => this.hand(detail));
    this.takes("llava:locate", (detail) => this.locate(detail));
    this.set(null);
  }

  clear() {
    super.clear();
    this.table = null;
  }

  /**
   * @param {FeatureData} data
   * @param {FeaturePicture} picture
   * @param {AbortSignal} signal
   */
  begin(data, picture, signal) {
    const { part, options } = this;
    const state = {
      ready: true,
      run: data.run,
      feature: null,
      layers: [],
      where: null,
      sort: null,
      listed: [],
      busy: false,
      hideDense: false,
      ...places(data),
      box: null,
      drawing: null,
      readRow: null,
      maps: [],
    };
    this.open(data, picture, state);
    this.slots = new Map();
    this.asker = new Asker(signal);
    this.list = new Listing(data, part, options, this.asker, (said) => this.listed(said), signal);
    this.near = new Near(data, part, options, this.asker, this.list, (number) => this.select(number), signal);
    this.stage = new Stage(data, picture, state, part, {
      point: (row, keys) => this.point(row, keys),
      pick: (row) => this.pick(row),
      box: (box) => this.draw(box),
      render: () => this.render(),
      signal,
    });
    this.strip = new Card.Strip(data, part, { point: (row) => this.point(row), pick: (row) => this.pick(row), signal });
    this.table = new FeatureTable(data, part, {
      select: (number) => {
        this.select(number);
        this.reveal();
      },
      pin: (number) => this.pin(number),
      sort: (key) => this.sort(key),
      signal,
    });
    this.words();
    this.controls(signal);
    this.listed();
    if (data.home.length) this.select(data.home[0].feature, false);
    this.hand(this.handed);
    this.handed = null;
    this.locate(this.sought);
    this.render(true);
  }

  // Texts that change only with the payload.
  words() {
    const {
      part,
      data: { payload },
    } = this;
    const { sae } = payload;
    part.prompt.textContent = payload.prompt;
    part.answer.textContent = payload.answer || "(no answer)";
    part.facts.textContent = `${payload.model} · ${sae.name} · layer ${sae.layer} · ${plural(sae.features, "feature")}`;
    part.notes.replaceChildren(
      ...[
        ...sae.notes.map((note) => el("span", "view-chip features-warn", note)),
        ...payload.notes.map((note) => el("span", "view-chip", note)),
      ],
    );
    part.labels.textContent = sae.labels;
    part.limits.textContent = payload.limits;
    this.root.dataset.rank = payload.rank_by;
    Card.quality(part, payload);
  }

  controls(signal) {
    const { part, data, state } = this;
    const on = (node, type, fn) => node.addEventListener(type, fn, { signal });
    pictureSwitches(part, `features-view-${this.serial}`, data, state, () => this.render(true), signal);
    on(part.png, "click", () => this.download());
    on(part.back, "click", () => this.back());
    on(part.layers, "click", (event) => {
      const { feature } = event.target.closest("button")?.dataset || {};
      if (feature !== undefined) this.pin(+feature);
    });
    on(part.steer, "click", () => this.steer());
    on(part.study, "click", () => this.options.study({ study: data.payload.sae.study, feature: state.feature }));
    on(part.words, "click", () => this.options.words({ sae: data.payload.sae.name, feature: state.feature }, data.payload));
    on(this.root, "keydown", (event) => {
      if (event.key === "Escape" && state.where) this.back();
    });
  }

  // The list, order or filter has changed; `said` is read aloud.
  listed(said) {
    const { state, list } = this;
    state.sort = list.sort;
    state.busy = Boolean(list.busy);
    state.hideDense = list.hideDense;
    this.rows = list.visible();
    state.listed = this.rows.entries.map((entry) => entry.feature);
    if (said) this.part.live.textContent = said;
    this.render();
  }

  // A header was pressed: figures start with the largest, labels and numbers with the first; a third press restores the ranking.
  sort(key) {
    const { list } = this;
    const first = !["label", "feature"].includes(key);
    list.sort = list.sort?.key !== key ? { key, down: first } : list.sort.down === first ? { key, down: !first } : null;
    this.listed(list.sort ? `Sorted by ${key}, ${list.sort.down ? "descending" : "ascending"}` : "In the order of the ranking");
  }

  point(row, keys = false) {
    const { state, data } = this;
    if (state.hover === row && !keys) return;
    state.hover = row;
    this.render();
    if (!keys) return;
    const active = data
      .activeAt(this.rows.entries, row)
      .slice(0, 3)
      .map((entry) => `${data.name(entry)} ${amount(entry.at[row])}`);
    this.part.live.textContent = state.drawing
      ? `Box to ${placeName(data, row)}`
      : `${placeName(data, row)}: ${active.join(", ") || "none of the listed features"}`;
  }

  // A click on a patch or token locks it and lists its features; a second one goes back to the payload's list.
  pick(row) {
    return this.state.locked === row ? this.back() : this.lock(row);
  }

  lock(row) {
    const { state, data } = this;
    const place = data.place.get(row);
    Object.assign(state, { locked: row, box: null, cursor: place ? row : state.cursor });
    let words, request;
    if (place) {
      const { cols } = data.grids[place.grid];
      request = { patches: [[Math.floor(place.index / cols), place.index % cols]], grid: place.grid };
      words = `patch ${placeName(data, row)}`;
    } else {
      request = { positions: [row] };
      words = `${placeName(data, row)} “${look(data.tokens[row]).text}”`;
    }
    state.where = request;
    this.list.at(request, words, [row]);
  }

  draw(box) {
    const { state, data } = this;
    const corners = [box.r0, box.c0, box.r1, box.c1];
    const request = { box: corners, grid: box.grid };
    Object.assign(state, { box, locked: null, where: request });
    const grid = data.grids.length > 1 ? `${data.grids[box.grid].name}, ` : "";
    this.list.at(
      request,
      `patches ${grid}rows ${box.r0 + 1}–${box.r1 + 1}, columns ${box.c0 + 1}–${box.c1 + 1}`,
      data.boxRows(box.grid, corners),
    );
  }

  back() {
    Object.assign(this.state, { locked: null, box: null, where: null });
    this.list.home();
    this.part.live.textContent = this.list.own.title;
  }

  // A position handed over by another view. Until there is a payload of the same picture it waits.
  hand(from) {
    const row = from?.position;
    if (!Number.isInteger(row)) return;
    if (!this.table || !this.data.isOf(from)) {
      this.handed = from;
      return;
    }
    if (row < 0 || row >= this.data.T) return;
    const place = this.data.place.get(row);
    if (place && place.grid !== this.state.grid) {
      this.state.grid = place.grid;
      this.part.grid.value = place.grid;
    }
    this.lock(row);
  }

  /**
   * Show where a feature is that another view hands over. Until its SAE is shown it waits.
   * @param {{ sae: string, feature: number } | null} wanted
   */
  locate(wanted) {
    this.sought = null;
    if (!wanted) return;
    if (this.table && this.data.payload.sae.name === wanted.sae) {
      this.near.follow(wanted.feature);
      return;
    }
    this.sought = wanted;
    if (this.table) this.list.say(`Feature ${wanted.feature} is one of ${wanted.sae}. Choose that SAE above.`, true);
  }

  entry(number) {
    return this.list.current.entries.find((entry) => entry.feature === number) || this.data.known.get(number);
  }

  select(number, aloud = true) {
    const { state, data } = this;
    const entry = data.known.get(number);
    if (!entry) return;
    state.feature = number;
    this.near.show(number);
    this.render();
    if (aloud)
      this.part.live.textContent = `${data.name(entry)}, number ${number}, ${entry.peak > 0 ? `highest on the picture ${amount(entry.peak)} at ${placeName(data, entry.peakRow)}` : "on no patch of this picture"}`;
  }

  pin(number) {
    const { state } = this;
    if (state.layers.includes(number)) state.layers = state.layers.filter((other) => other !== number);
    else if (state.layers.length < LAYERS) state.layers = [...state.layers, number];
    this.render();
  }

  // What steering needs to know of the selected feature; `active`: its patches on the first grid.
  steer() {
    const { state, data, options } = this;
    const { sae } = data.payload,
      [{ positions, cols }] = data.grids;
    const { feature, label, peak, at } = data.known.get(state.feature);
    const active = [...positions.keys()].filter((i) => at[positions[i]] > 0).map((i) => [Math.floor(i / cols), i % cols]);
    options.steer({ run: state.run, sae: sae.name, layer: sae.layer, feature, label, max: peak, active });
  }

  async download() {
    const { state, data, shown } = this;
    const { sae, model } = data.payload;
    const several = shown.length > 1;
    const lines = shown.map((entry) => [
      `${entry.label || "no name"} · feature ${entry.feature} · 0 to ${amount(entry.peak)}`,
      several ? this.colour(entry.feature) : "ramp",
    ]);
    if (!lines.length) lines.push(["no feature", null]);
    lines.push([`${sae.name} · layer ${sae.layer} · ${model}`, null]);
    const name = `features-${shown.map((entry) => entry.feature).join("-") || "none"}.png`;
    saveFile(await captioned(this.picture, state, lines, this.accent()), name);
  }

  colour(number) {
    return OUTLINES[this.slots.get(number)];
  }

  get drawable() {
    return Boolean(this.data && this.table);
  }

  // The selected feature is always on the picture, next to the layers; each keeps its colour while it is there.
  derive() {
    const { state, data, slots } = this;
    const numbers = state.feature === null || state.layers.includes(state.feature) ? state.layers : [...state.layers, state.feature];
    for (const number of [...slots.keys()]) if (!numbers.includes(number)) slots.delete(number);
    for (const number of numbers) {
      if (slots.has(number)) continue;
      const taken = new Set(slots.values());
      slots.set(
        number,
        OUTLINES.findIndex((_, slot) => !taken.has(slot)),
      );
    }
    this.shown = numbers.map((number) => data.known.get(number));
    state.maps = this.shown.map(({ feature, at, peak }) => ({ at, top: peak, colour: this.colour(feature) }));
    state.shownRow = state.hover ?? state.locked;
    state.readRow =
      state.shownRow ?? data.known.get(state.feature)?.peakRow ?? data.grids[state.grid].positions[0] ?? data.kinds.search(/[ip]/);
    if (data.place.has(state.shownRow)) state.cursor = state.shownRow;
  }

  paint() {
    const { state, data, part, picture, shown, rows, list } = this;
    const fresh = this.fitted(0.6);
    if (fresh === null) return;
    const maps = shown.map((entry) => entry.feature).join();
    const mapped = this.changed("maps", maps, state.layers.join(), state.grid);
    if (mapped || fresh) picture.drawBase(state);
    picture.drawMarks(state, this.accent());
    const colours = new Map(shown.length > 1 ? shown.map((entry) => [entry.feature, this.colour(entry.feature)]) : []);
    if (mapped) {
      part.title.replaceChildren(
        shown.length === 1
          ? Card.name(shown[0])
          : shown.length
            ? el("span", "", `${shown.length} features as layers`)
            : el("span", "view-dim", "No feature is shown"),
      );
      Card.layers(part, data, shown, state.layers, colours);
      Card.scale(part, data, state, shown);
    }
    if (this.changed("table", rows)) {
      list.lines(rows, state.where !== null);
      this.table.draw(rows.entries, state.sort, list.nothing(rows));
    }
    if (mapped || this.changed("marks", state.feature, rows))
      this.table.mark(state.feature, state.layers, colours, state.layers.length >= LAYERS);
    const entry = state.feature === null ? null : this.entry(state.feature);
    if (this.changed("card", state.feature)) {
      Card.card(part, entry);
      // Checked each time: the page may gain the tab after the view.
      const { steer, hasSteer, words, hasWords, study, hasStudy } = this.options;
      part.steer.hidden = !steer || Boolean(hasSteer && !hasSteer());
      part.words.hidden = !words || Boolean(hasWords && !hasWords());
      part.study.hidden = !data.payload.sae.study || !study || Boolean(hasStudy && !hasStudy());
    }
    if (entry && this.changed("strip", state.feature, state.locked)) this.strip.mark(entry, state.locked);
    if (this.changed("here", state.readRow, rows, maps)) {
      const others = shown.filter((one) => !rows.entries.some((listed) => listed.feature === one.feature));
      Card.here(part, data, [...rows.entries, ...others], state.readRow, state.feature);
    }
    this.root.dataset.ready = "true";
  }
}

export const mount = mounting(View);

Object.assign(page, { mountFeatures: mount, openSteer, steerTab, openAttribution, attributionTab, openStudy, studyTab });
