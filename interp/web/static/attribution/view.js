// Mounts the attribution view: one state, the controls that change it, and one render that brings every part up to date. A host calls
// mount(element, options) and set(payload). Options, each optional: attributeWord(run, spec), featureWords(run, feature) and
// withoutFeatures(run, {token, features}) ask the server; chose(spec) is told which word is shown; steer({run, sae, layer, feature, label, max,
// active}) and study({study, feature}) hand a feature over, if hasSteer() and hasStudy() say that there is a tab for it.

import { Asker } from "../shared/asker.js";
import { captioned } from "../shared/caption.js";
import { el, saveFile } from "../shared/elements.js";
import { openSteer, openStudy, page, steerTab, studyTab } from "../shared/page.js";
import { placeName } from "../shared/payload.js";
import { mounting, PictureShell } from "../shared/shell.js";
import { places, Stage } from "../shared/stage.js";
import { pictureSwitches } from "../shared/switches.js";
import { look, plural } from "../shared/text.js";
import * as Card from "./card.js";
import { AttributionData, specKey } from "./data.js";
import { FeatureList, keyOf } from "./list.js";
import { AttributionPicture, LOWERED, RAISED } from "./picture.js";
import * as say from "./text.js";
import { Without } from "./without.js";
import { Words } from "./words.js";

const COUNTS = [10, 20, 50, 100];
const PAUSE = 180; // ms in which a next word may follow, as when a key is held
const SILENCE = "The server could not compute this. Press Run and try again.";
const NO_SERVER = "This file has no model: it holds the words that were looked at before it was saved.";

/** @extends {PictureShell<AttributionData, AttributionPicture>} */
class View extends PictureShell {
  constructor(root, options) {
    super(root, options, {
      state: "__attribution",
      Data: AttributionData,
      Picture: AttributionPicture,
      empty: "Nothing to attribute yet. Choose a picture and press Run.",
      unreadable: "The picture in this view could not be read.",
    });
    const { part } = this;
    const { signal } = this.page;
    this.words = new Words(
      part,
      { word: (token) => this.choose({ token, baseline: "" }), against: (baseline) => this.choose({ baseline }) },
      signal,
    );
    this.without = new Without(part, { ask: (features) => this.ablate(features) }, signal);
    this.takes("llava:feature", (detail) => this.handed(detail));
    this.controls();
    this.set(null);
  }

  clear() {
    super.clear();
    clearTimeout(this.timer);
    this.list = null;
  }

  /**
   * @param {AttributionData} data
   * @param {AttributionPicture} picture
   * @param {AbortSignal} signal
   */
  begin(data, picture, signal) {
    const { part, options } = this;
    this.asker = new Asker(signal);
    this.tracked = null;
    const state = {
      ready: true,
      run: data.run,
      spec: { ...data.first.spec },
      key: null,
      busy: false,
      tracked: null,
      pointed: null,
      line: null,
    };
    this.open(data, picture, { ...state, ...places(data) });
    this.list = new FeatureList(data, part, {
      point: (line) => this.point(line),
      select: (line) => this.select(keyOf(line)),
      signal,
    });
    this.stage = new Stage(data, picture, this.state, part, {
      render: () => this.render(),
      said: (row) => `${placeName(data, row)}: ${say.signed(this.selected.at[row])}`,
      root: this.root,
      signal,
    });
    this.texts(signal);
    this.words.draw(data, this.state.spec.token, null, Boolean(options.attributeWord));
    this.show(data.first);
    const waiting = page.waitingFeature;
    page.waitingFeature = null;
    if (waiting) this.follow(waiting);
    this.render(true);
  }

  // Texts and switches that change only with the payload.
  texts(signal) {
    const { part, data, state } = this;
    const { payload } = data;
    const { sae } = payload;
    part.prompt.textContent = payload.prompt;
    part.facts.textContent = `${payload.model} · ${sae.name} · layer ${sae.layer} · ${plural(sae.features, "feature")}`;
    part.notes.replaceChildren(
      ...sae.notes.map((note) => el("span", "view-chip attribution-warn", note)),
      ...payload.notes.map((note) => el("span", "view-chip", note)),
    );
    part.limits.textContent = payload.limits;
    pictureSwitches(part, `attribution-view-${this.serial}`, data, state, () => this.render(true), signal);
    part.here.hidden = !data.place.size;
    const counts = [...new Set([...COUNTS.filter((n) => n <= payload.sae.features), state.spec.top])].sort((a, b) => a - b);
    part.count.replaceChildren(...counts.map((n) => new Option(String(n))));
    part.count.disabled = !this.options.attributeWord;
  }

  controls() {
    const { part } = this;
    const on = (node, type, fn) => this.listen(node, type, fn);
    on(part.count, "change", () => this.choose({ top: +part.count.value }));
    on(part.png, "click", () => this.download());
    on(part.track, "click", () => this.track(this.selected.feature));
    on(part.trackedOff, "click", () => this.untrack());
    on(part.steer, "click", () => this.steer());
    on(part.study, "click", () => this.options.study({ study: this.data.payload.sae.study, feature: this.selected.feature }));
  }

  // Another word, another one to compare it with, or another length of the list.
  choose(change) {
    const { data, state, asker, options } = this;
    if (!this.drawable) return;
    const spec = { ...state.spec, ...change };
    state.spec = spec;
    clearTimeout(this.timer);
    asker.cancel("word");
    const known = data.words.get(specKey(spec));
    if (known) return this.show(known);
    if (!options.attributeWord) {
      const other = [...data.words.values()].find((word) => word.spec.token === spec.token);
      if (other && change.baseline === undefined) return this.show(other);
      this.busy("", false);
      return this.say(NO_SERVER, true);
    }
    this.busy(`Attributing “${look(data.answer[spec.token]).text}” …`, true);
    this.timer = setTimeout(() => this.ask(spec), PAUSE);
  }

  async ask(spec) {
    const { data, state, asker, options } = this;
    const out = await asker.ask(
      "word",
      async () => {
        const answer = await options.attributeWord(state.run, spec);
        return answer && !answer.error ? { word: data.add(answer) } : answer;
      },
      SILENCE,
    );
    if (!out) return;
    if (!out.error) return this.show(out.answer.word);
    // What is shown stays, and is again what is asked for.
    state.spec = { ...this.word.spec };
    this.words.chips.choose(state.spec.token);
    this.busy("", false);
    this.say(out.error, true);
  }

  busy(text, on) {
    const { part, state } = this;
    state.busy = on;
    part.scroller.setAttribute("aria-busy", String(on));
    part.sums.setAttribute("aria-busy", String(on));
    this.say(text);
  }

  say(text, bad = false) {
    this.part.said.textContent = text;
    this.part.said.classList.toggle("view-bad", bad);
  }

  show(word) {
    const { part, data, state, options } = this;
    const asks = Boolean(options.attributeWord);
    this.word = word;
    state.spec = { ...word.spec };
    this.busy("", false);
    if (this.words.chips.chosen !== word.spec.token) this.words.chips.choose(word.spec.token);
    part.count.value = String(word.spec.top);
    this.words.compared(word, asks);
    Card.sums(part, data, word);
    this.without.draw(data, word, Boolean(options.withoutFeatures));
    this.relist();
    part.live.textContent = `${part.headline.textContent}. Most: ${word.lines
      .slice(0, 3)
      .map((line) => `${data.name(line)} ${say.signed(line.score)}`)
      .join(", ")}`;
    options.chose?.(word.spec);
  }

  // The list of the shown word, with the followed feature at its end if it is not in it. What was selected stays if it is listed.
  relist() {
    const { word, state, tracked } = this;
    const known = tracked && word.lines.some(({ feature }) => feature === tracked.feature);
    this.extra = tracked && !known ? tracked.lines[word.spec.token] : null;
    this.list.draw(word, this.extra);
    state.pointed = null;
    if (!this.list.lines.has(state.key)) state.key = this.list.lines.keys().next().value;
    this.key = {};
    this.render();
  }

  get drawable() {
    return Boolean(this.data && this.list);
  }

  get selected() {
    return this.list.byKey.get(this.state.key);
  }

  point(line) {
    const key = line && keyOf(line);
    if (this.state.pointed === key) return;
    this.state.pointed = key;
    this.render();
  }

  select(key) {
    const { state, part, data } = this;
    if (!this.list.byKey.has(key)) return;
    state.key = key;
    state.pointed = null;
    this.render();
    const line = this.selected;
    part.live.textContent = `${data.name(line)}, estimate ${say.signed(line.score)}, ${line.peakRow === null ? "nothing read from the picture" : `most read from ${placeName(data, line.peakRow)}`}`;
    this.reveal();
  }

  // A feature handed over by another view. Until its picture is shown here it waits.
  handed(detail) {
    if (this.drawable) this.follow(detail);
    else page.waitingFeature = detail;
  }

  follow(detail) {
    const { data } = this;
    const { sae } = data.payload;
    if (!data.isOf(detail) || detail.sae !== sae.name) page.waitingFeature = detail;
    else this.track(detail.feature);
  }

  async track(feature) {
    const { data, state, asker, options, part } = this;
    if (!options.featureWords) return this.say(NO_SERVER, true);
    this.say(`Looking at every word for feature ${feature} …`);
    part.track.disabled = true;
    const out = await asker.ask(
      "track",
      async () => {
        const answer = await options.featureWords(state.run, feature);
        return answer && !answer.error ? { tracked: data.tracked(answer) } : answer;
      },
      SILENCE,
    );
    if (!out) return;
    part.track.disabled = false;
    if (out.error) return this.say(out.error, true);
    if (!state.busy) this.say("");
    this.tracked = out.answer.tracked;
    state.tracked = feature;
    state.key = String(feature);
    this.words.draw(data, state.spec.token, this.tracked, Boolean(options.attributeWord));
    this.relist();
    part.live.textContent = part.trackedSaid.textContent;
    part.words.scrollIntoView({ block: "nearest" });
  }

  untrack() {
    const { state, data, options } = this;
    this.tracked = null;
    state.tracked = null;
    this.words.draw(data, state.spec.token, null, Boolean(options.attributeWord));
    this.relist();
  }

  ablate(features) {
    const { asker, options, state, word } = this;
    return asker.ask("without", () => options.withoutFeatures(state.run, { token: word.spec.token, features }), SILENCE);
  }

  // What steering needs to know of the selected feature; `active`: its patches on the first grid.
  steer() {
    const { state, data, options, selected } = this;
    const { sae } = data.payload;
    const { feature, label, max } = selected;
    options.steer({ run: state.run, sae: sae.name, layer: sae.layer, feature, label, max, active: data.patches(selected) });
  }

  async download() {
    const { state, data, picture, selected, word } = this;
    const { sae, model } = data.payload;
    const name = data.name(selected);
    const spoken = (text) => `“${look(text).text}”`;
    const words = `${spoken(data.answer[word.spec.token])} over ${spoken(word.raw.other)}`;
    const most = say.signed(selected.peak).slice(1);
    const lines = [
      [`${name}${selected.feature === null ? "" : ` #${selected.feature}`} · ${say.signed(selected.score)} for ${words}`, null],
      [`raised the word, up to ${most} a patch`, RAISED],
      ["lowered it, same scale, hatched", LOWERED],
      [`estimated effects in logits · ${sae.name} · layer ${sae.layer} · ${model}`, null],
    ];
    const shown = { ...state, line: selected };
    saveFile(await captioned(picture, shown, lines, this.accent()), `attribution-${keyOf(selected)}.png`);
  }

  paint() {
    const { state, data, part, picture, list, word, selected, options } = this;
    const fresh = this.fitted(0.55);
    if (fresh === null) return;
    const line = list.byKey.get(state.pointed) ?? selected;
    state.line = line;
    state.shownRow = state.hover ?? state.locked;
    if (this.changed("map", line, state.grid) || fresh) {
      picture.drawBase(state);
      part.title.replaceChildren(Card.named(data, line));
      Card.scale(part, data, state.grid, line);
      list.mark(state.key, keyOf(line));
    }
    picture.drawMarks(state, this.accent());
    if (this.changed("card", line)) {
      Card.card(part, data, line);
      // Checked each time: the page may gain the tab after the view.
      part.steer.hidden = line.feature === null || !options.steer || Boolean(options.hasSteer && !options.hasSteer());
      const { study, hasStudy } = options;
      part.study.hidden = line.feature === null || !data.payload.sae.study || !study || Boolean(hasStudy && !hasStudy());
      part.track.hidden = line.feature === null || !options.featureWords;
    }
    if (this.changed("strip", line)) Card.strip(part, data, line, word);
    const row = state.shownRow ?? line.peakRow;
    if (this.changed("here", row)) Card.here(part, data, word, row);
    this.root.dataset.ready = "true";
  }
}

export const mount = mounting(View);

Object.assign(page, { mountAttribution: mount, openSteer, steerTab, openStudy, studyTab });
