// "Steer from i to j": the plain answer, the one with the step, and the one with a random step of the same length.
/** @import { ConceptLook } from "../payloads.js" */
/** @import { Concept, ConceptData } from "./data.js" */
import { markedSide } from "../shared/diff.js";
import { el } from "../shared/elements.js";
import { plural, share } from "../shared/text.js";
import * as say from "./text.js";

const OFFERED = 0.25; // of the way, between two stops of the slider

export class Step {
  // host: {ask(request): the server's answer, an error, or null if it came too late; changed(): the reader set the step}
  constructor(part, host, signal) {
    this.part = part;
    this.host = host;
    this.chose = false; // whether the reader said where the step acts
    part.place.addEventListener(
      "change",
      () => {
        this.chose = true;
        host.changed();
      },
      { signal },
    );
    for (const field of [part.target, part.value]) field.addEventListener("change", () => host.changed(), { signal });
    part.value.addEventListener("input", () => this.far(), { signal });
    part.steerForm.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        this.go();
      },
      { signal },
    );
  }

  /** @param {ConceptData} data */
  begin(data, asks) {
    const { part } = this;
    this.data = data;
    part.steerBox.hidden = !asks || data.concepts.length < 2;
    part.value.step = String(OFFERED);
    this.far();
  }

  /**
   * From this concept; to another one, by default the one that most differs in place: the next in the list.
   * @param {Concept} concept
   * @param {number[]} order
   */
  from(concept, order) {
    const { part, data } = this;
    const before = +part.target.value;
    this.concept = concept;
    const others = order.filter((number) => number !== concept.concept);
    part.target.replaceChildren(...others.map((number) => new Option(`${data.name(data.concepts[number])} (${number})`, String(number))));
    if (others.includes(before)) part.target.value = String(before);
    part.fromName.textContent = data.name(concept);
    const [places] = part.place.options;
    places.textContent = `the ${plural(concept.places.length, "patch", "patches")} that have most of it`;
    places.disabled = !concept.places.length;
    if (!concept.places.length && part.place.value === "places") part.place.value = "image";
    else if (concept.places.length && !this.chose) part.place.value = "places";
    this.say("");
    part.steered.hidden = true;
  }

  /** The step as it is set, without where it begins. */
  get said() {
    const { target, value, place } = this.part;
    return { target: target.value === "" ? null : +target.value, value: +value.value, where: place.value };
  }

  /** @param {ConceptLook} look */
  set({ target, value, where }) {
    const { part } = this;
    if (target !== null && target !== this.concept.concept) part.target.value = String(target);
    part.value.value = String(value);
    this.far();
    if (where === "places") return;
    this.chose = true;
    part.place.value = where;
  }

  far() {
    this.part.valueSaid.textContent = say.far(+this.part.value.value, this.data?.payload.unit ?? "amount");
  }

  async go() {
    const { part, host, concept } = this;
    part.go.disabled = true;
    this.say("Steering …");
    const out = await host.ask({ source: concept.concept, ...this.said });
    part.go.disabled = false;
    if (!out) return;
    this.say(out.error ?? "", Boolean(out.error));
    if (!out.error) this.show(out.answer);
  }

  say(text, bad = false) {
    this.part.steerNote.textContent = text;
    this.part.steerNote.classList.toggle("view-bad", bad);
  }

  show(found) {
    const { part } = this;
    part.steered.hidden = false;
    for (const [node, diff, side, answer] of [
      [part.plain, found.diff, "plain", found.plain],
      [part.after, found.diff, "steered", found.steered],
      [part.random, found.random_diff, "steered", found.random],
    ]) {
      node.replaceChildren(...(answer.text ? markedSide(diff, side) : [el("span", "view-dim", "(empty answer)")]));
    }
    const same = found.plain.text === found.steered.text;
    part.effect.textContent =
      `The step changed ${plural(found.fired, "position")}, by ${share(found.relative)} of the states' length on average.` +
      `${same ? " The answer stays the same." : ""}${!same && found.steered.text === found.random.text ? " The random step gives the same answer, so this proves nothing." : ""}`;
  }
}
