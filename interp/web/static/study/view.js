// Mounts the study view: one feature of a study, and the ways to another. A host calls mount(element, options) and set(payload). Options, each
// optional: studyFeature(study, feature) and findInStudy(study, text) ask the server; handOver(study, feature) says how this page's model knows the
// feature, which steer(edit) and locate({sae, feature}) are then given, if hasSteer() and hasFeatures() say that there is a tab for it; chose({study,
// feature}) is told what is shown.
/** @import { StudyPayload } from "../payloads.js" */
/** @import { StudiedFeature } from "./data.js" */
import { Asker } from "../shared/asker.js";
import { el } from "../shared/elements.js";
import { featuresTab, openLocated, openSteer, page, steerTab } from "../shared/page.js";
import { requireSchema } from "../shared/payload.js";
import { Shell } from "../shared/shell.js";
import { amount, plural } from "../shared/text.js";
import * as Card from "./card.js";
import * as Data from "./data.js";
import { Pictures } from "./pictures.js";

const SILENCE = "The server could not look this up. Try again.";
const NO_SERVER = "This page has no server to ask.";
const PAST = 50; // features that Back returns to

/** @extends {Shell<{ payload: StudyPayload }>} */
class View extends Shell {
  constructor(root, options) {
    super(root, options);
    const { part } = this;
    const { signal } = this.page;
    this.asker = new Asker(signal);
    this.pictures = new Pictures(part.pictures);
    this.past = [];
    this.state = null;
    this.waiting = page.waitingStudy ?? null;
    page.waitingStudy = null;
    const on = (node, type, fn) => node.addEventListener(type, fn, { signal });
    this.takes("llava:study", (detail) => this.hand(detail));
    on(part.search, "submit", (event) => {
      event.preventDefault();
      this.find(part.text.value.trim());
    });
    on(part.any, "click", () => this.go("any"));
    on(part.back, "click", () => this.back());
    on(part.study, "change", () => this.go(null, part.study.value));
    on(part.heat, "change", () => this.pictures.draw(part.heat.checked));
    on(part.steer, "click", () =>
      this.hands(({ sae, layer, feature, label, max }) => this.options.steer({ sae, layer, feature, label, max: max || null, active: [] })),
    );
    on(part.locate, "click", () => this.hands(({ sae, feature }) => this.options.locate({ sae, feature })));
    for (const box of [part.near, part.found]) {
      on(box, "click", (event) => {
        const { feature } = event.target.closest("button")?.dataset ?? {};
        if (feature !== undefined) this.go(+feature);
      });
    }
    this.set(null);
  }

  /**
   * Show a payload; null shows the empty state.
   * @param {StudyPayload | null} payload
   */
  set(payload) {
    const { part, root } = this;
    const text = JSON.stringify(payload);
    if (this.state && text === this.came) return; // gradio may deliver it again: the reader has gone on from there
    this.came = text;
    root.__study = this.state = null;
    delete root.dataset.ready;
    this.past = [];
    if (!payload) return this.message("No study to look into yet.");
    try {
      requireSchema(payload, Data.SCHEMA);
      const first = Data.decode(payload);
      this.studies = payload.studies;
      part.limits.textContent = payload.limits;
      part.study.replaceChildren(...payload.studies.map((name) => new Option(name)));
      part.studyBox.hidden = payload.studies.length < 2;
      part.empty.hidden = true;
      part.body.hidden = false;
      this.say("");
      this.found([]);
      this.show(first);
    } catch (error) {
      return this.message(/** @type {Error} */ (error).message, true);
    }
    const { waiting } = this;
    this.waiting = null;
    if (waiting) this.hand(waiting);
  }

  /** @param {{ study: any, feature: StudiedFeature }} shown */
  show({ study, feature }) {
    const { part, root, options, studies } = this;
    this.state = root.__study = { study: study.name, feature: feature.feature };
    part.study.value = study.name;
    part.facts.textContent =
      `${studies.length < 2 ? `${study.name} · ` : ""}${study.model} · ${study.sae} · layer ${study.layer} · ` +
      `${study.alive.toLocaleString("en")} of ${plural(study.features, "feature")} active on some of ${plural(study.samples, "picture")}`;
    Card.card(part, feature, study);
    part.link.href = Data.address({ studies, ...this.state });
    // Checked each time: the page may gain a tab after the view.
    part.steer.hidden = !options.handOver || !options.steer || Boolean(options.hasSteer && !options.hasSteer());
    part.locate.hidden = !options.handOver || !options.locate || Boolean(options.hasFeatures && !options.hasFeatures());
    part.refused.hidden = true;
    part.scale.classList.toggle("view-off", !(feature.most > 0));
    part.scaleHigh.textContent = amount(feature.most);
    this.pictures.show(feature, part.heat.checked, study.pool).then(() => {
      root.dataset.ready = "true";
    });
    const last = this.past.at(-1);
    part.back.hidden = !last;
    if (last) part.back.textContent = `Back to #${last.feature}`;
    part.live.textContent = `${feature.label || "no label"}, feature ${feature.feature}. ${part.counts.textContent}`;
    options.chose?.(this.state);
  }

  /**
   * Another feature, by number, "any", or null for the one that a study opens with.
   * @param {number | "any" | null} feature
   */
  async go(feature, study = this.state.study, remember = true) {
    const { asker, options, root, state } = this;
    if (!options.studyFeature) return this.say(NO_SERVER, true);
    const out = await asker.ask(
      "feature",
      async () => {
        const answer = await options.studyFeature(study, feature);
        return answer && !answer.error ? { shown: Data.decode(answer) } : answer;
      },
      SILENCE,
    );
    if (!out) return;
    if (out.error) {
      this.part.study.value = this.state.study;
      return this.say(out.error, true);
    }
    delete root.dataset.ready;
    this.say("");
    if (study !== state.study) this.found([]);
    if (remember) this.past = [...this.past, state].slice(-PAST);
    this.show(out.answer.shown);
  }

  back() {
    const last = this.past.pop();
    if (last) this.go(last.feature, last.study, false);
  }

  /** @param {string} text */
  async find(text) {
    const { asker, options, state } = this;
    if (!text) return this.say("Type a number or a part of a label first.", true);
    if (/^#?[0-9]+$/.test(text)) {
      this.found([]);
      return this.go(Number(text.replace("#", "")));
    }
    if (!options.findInStudy) return this.say(NO_SERVER, true);
    this.say("Searching …");
    const out = await asker.ask("find", () => options.findInStudy(state.study, text), SILENCE);
    if (!out) return;
    if (out.error) return this.say(out.error, true);
    const { features, note } = out.answer;
    this.found(features);
    this.say(note);
    if (features.length) this.go(features[0].feature).then(() => this.say(note));
  }

  /** @param {{ feature: number, label: string }[]} features */
  found(features) {
    const { part } = this;
    part.found.replaceChildren(
      ...features.map((one) => {
        const button = el("button");
        button.type = "button";
        button.dataset.feature = String(one.feature);
        button.append(Card.named(one));
        return button;
      }),
    );
    part.found.hidden = !features.length;
  }

  /**
   * A feature handed over by another view. Until there is a payload it waits.
   * @param {{ study: string, feature: number }} detail
   */
  hand({ study, feature }) {
    if (!this.state) this.waiting = { study, feature };
    else this.go(feature, study);
  }

  /**
   * Hand the feature to another tab, under the name that this page's model knows it by.
   * @param {(known: any) => void} to
   */
  async hands(to) {
    const { asker, options, part, state } = this;
    part.refused.hidden = true;
    const out = await asker.ask("hand", () => options.handOver(state.study, state.feature), SILENCE);
    if (!out) return;
    if (!out.error) return to(out.answer);
    part.refused.textContent = out.error;
    part.refused.hidden = false;
  }

  say(text, bad = false) {
    this.part.note.textContent = text;
    this.part.note.classList.toggle("view-bad", bad);
  }
}

// Mount the view on the element that holds view.html; the host then calls set(payload).
export function mount(element, options = {}) {
  const root = element.querySelector("[data-part=root]");
  root.__view?.destroy();
  root.__view = new View(root, options);
  return root.__view;
}

Object.assign(page, { mountStudy: mount, openSteer, steerTab, openLocated, featuresTab });
