// The concepts as cards: pictures with maps, words, size and stability. One stop of the Tab key; arrow keys move in it.
/** @import { Concept, ConceptData } from "./data.js" */
import { el } from "../shared/elements.js";
import { plural } from "../shared/text.js";
import * as say from "./text.js";
import { thumb } from "./thumb.js";

const PICTURES = 3;

export class Cards {
  /**
   * on: {select(concept), signal}
   * @param {ConceptData} data
   */
  constructor(data, part, on) {
    this.data = data;
    this.part = part;
    this.on = on;
    /** Made once: drawing the pictures takes time. */
    this.nodes = new Map(data.concepts.map((concept) => [concept.concept, this.card(concept)]));
    const listen = (type, fn) => part.cards.addEventListener(type, fn, { signal: on.signal });
    listen("click", (event) => {
      const card = event.target.closest("button");
      if (card) on.select(+card.dataset.concept);
    });
    listen("keydown", (event) => this.key(event));
  }

  /** @param {Concept} concept */
  card(concept) {
    const { data } = this;
    const card = el("button", "concepts-card");
    card.type = "button";
    card.dataset.concept = String(concept.concept);
    const pictures = el("span", "concepts-pictures");
    pictures.append(...concept.examples.slice(0, PICTURES).map((example) => thumb(data, concept, example)));
    const bar = el("span", "view-bar-back"),
      fill = el("i");
    fill.style.width = `${100 * data.most(concept)}%`;
    bar.append(fill);
    bar.title = "The most of it on your picture";
    const facts = el("span", "concepts-facts");
    const stability = el("span", concept.stability < 0.7 ? "concepts-weak" : "", `stability ${say.figure(concept.stability)}`);
    facts.append(el("span", "", plural(concept.size, "state")), stability);
    const moved = data.shifted.get(concept.concept);
    if (moved) facts.append(el("span", "concepts-moved", `moved ${say.figure(moved.relative)}`));
    card.append(pictures, el("span", concept.words.length ? "concepts-words" : "concepts-words view-dim", data.name(concept)), facts, bar);
    card.setAttribute(
      "aria-label",
      `${data.name(concept)}: ${plural(concept.size, "state")}, stability ${say.figure(concept.stability)}, strongest on ${plural(concept.places.length, "patch", "patches")} of your picture`,
    );
    return card;
  }

  /** @param {string} order */
  draw(order) {
    this.order = this.data.ordered(order).map(({ concept }) => concept);
    this.part.cards.replaceChildren(...this.order.map((concept) => this.nodes.get(concept)));
    this.part.cards.scrollTop = 0;
  }

  /** @param {number} concept */
  mark(concept) {
    for (const [number, node] of this.nodes) {
      node.setAttribute("aria-pressed", String(number === concept));
      node.tabIndex = number === concept ? 0 : -1;
    }
  }

  key(event) {
    const cards = [...this.part.cards.children];
    const at = cards.indexOf(event.target.closest("button"));
    if (at < 0) return;
    const columns = cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
    /** @type {Record<string, number>} */
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns, Home: 0, End: cards.length - 1 };
    const to = moves[event.key];
    if (to === undefined) return;
    event.preventDefault();
    cards[to]?.focus();
  }
}
