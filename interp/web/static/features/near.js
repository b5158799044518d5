// The features nearest to the selected one, asked of the host once each, and the way to them.
// Calls select(number) when one is chosen.
/** @import { FeatureData } from "./data.js" */
import { el } from "../shared/elements.js";
import * as Card from "./card.js";

export class Near {
  /**
   * host: {featureDetails, findFeatures}, either may be absent
   * @param {FeatureData} data
   */
  constructor(data, part, host, asker, list, select, signal) {
    this.data = data;
    this.part = part;
    this.host = host;
    this.asker = asker;
    this.list = list;
    this.select = select;
    this.found = new Map();
    part.near.addEventListener(
      "click",
      (event) => {
        const { feature } = event.target.closest("button")?.dataset || {};
        if (feature !== undefined) this.follow(+feature);
      },
      { signal },
    );
  }

  async show(number) {
    const { data, host, asker, found } = this;
    asker.cancel("follow");
    asker.cancel("near");
    this.buttons(found.get(number) || []);
    if (!host.featureDetails) return this.say("This page has no model to ask.");
    if (found.has(number)) return this.say(found.get(number).length ? "" : "None.");
    this.say("Looking them up…");
    const out = await asker.ask(
      "near",
      async () => checked(await host.featureDetails(number, data.run)),
      "The server could not look them up.",
    );
    if (!out) return;
    if (out.error) return this.say(out.error, true);
    found.set(number, out.answer.neighbours);
    this.say(out.answer.neighbours.length ? "" : "None.");
    this.buttons(out.answer.neighbours);
  }

  buttons(neighbours) {
    this.part.near.replaceChildren(
      ...neighbours.map(({ feature, cosine, label }) => {
        const button = el("button");
        button.type = "button";
        button.dataset.feature = feature;
        button.title = `cosine ${cosine.toFixed(3)}`;
        button.append(Card.name({ feature, label }), el("small", "", cosine.toFixed(2)));
        return button;
      }),
    );
  }

  // A known feature is selected at once; others are asked for by number.
  async follow(number) {
    const { data, host, asker, list } = this;
    if (data.known.has(number)) return this.select(number);
    if (!host.findFeatures) return this.say(`Feature ${number} is not among those listed here.`);
    this.say(`Looking up feature ${number}…`);
    const out = await asker.ask(
      "follow",
      async () => list.read(await host.findFeatures(String(number), data.run)),
      "The server could not look it up.",
    );
    if (!out) return;
    if (!out.error && data.known.has(number)) return this.select(number);
    this.say(out.error || `The server did not return feature ${number}.`, true);
  }

  say(text, bad = false) {
    this.part.nearNote.textContent = text;
    this.part.nearNote.classList.toggle("view-bad", bad);
  }
}

// An answer of the wrong shape is an error like any other.
function checked(answer) {
  if (answer && !answer.error && !Array.isArray(answer.neighbours)) return { error: "The server's answer could not be read." };
  return answer;
}
