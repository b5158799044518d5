// The selected concept: its words, its pictures, and the SAE features nearest to it.
/** @import { Concept, ConceptData } from "./data.js" */
import { barRows, el } from "../shared/elements.js";
import { placeName } from "../shared/payload.js";
import { amount, plural } from "../shared/text.js";
import * as say from "./text.js";
import { thumb } from "./thumb.js";

const HERE = 4; // concepts in the readout of a place

/**
 * @param {ConceptData} data
 * @param {Concept} concept
 */
export function card(part, data, concept) {
  const { dictionary } = data.payload;
  part.name.replaceChildren(data.name(concept), " ", el("small", "concepts-number", `concept ${concept.concept}`));
  part.figures.textContent =
    `${plural(concept.size, "state")} of ${dictionary.states.toLocaleString("en")} have most of it. Stability ${say.figure(concept.stability)}: ` +
    `${say.stable(concept.stability)} over seeds. Here: ${concept.places.length ? `strongest on ${plural(concept.places.length, "patch", "patches")}` : "strongest on no patch"}, ` +
    `at most ${amount(concept.activation)}.`;
  const words = [el("span", "view-key", "promotes"), ...concept.words.map((word) => el("span", "concepts-word", word))];
  if (concept.opposite.length) {
    words.push(el("span", "view-key", "and, turned round,"), ...concept.opposite.map((word) => el("span", "concepts-word", word)));
  }
  part.words.replaceChildren(...(concept.words.length ? words : [el("span", "view-note", "No real word is promoted by it.")]));
  part.pictures.replaceChildren(
    ...concept.examples.map((example) => {
      const figure = el("figure", "concepts-example");
      figure.append(thumb(data, concept, example), el("figcaption", "view-note", example.answer));
      return figure;
    }),
  );
}

/** @param {{ sae: string | null, features: { feature: number, cosine: number, label: string }[] }} found */
export function near(part, found) {
  part.nearNote.textContent = found.sae ? "" : "No SAE of this layer is known for this model.";
  part.nearKey.textContent = found.sae ? `nearest features of ${found.sae}` : "nearest SAE features";
  part.near.replaceChildren(
    ...found.features.map(({ feature, cosine, label }) => {
      const item = el("li");
      item.append(
        el("span", label ? "" : "view-dim", label || "unnamed"),
        " ",
        el("small", "concepts-number", `#${feature}`),
        " ",
        el("b", "", say.figure(cosine)),
      );
      item.title = `cosine ${cosine.toFixed(3)} of its decoder direction with the concept's`;
      return item;
    }),
  );
}

/**
 * The concepts that a place has most of.
 * @param {ConceptData} data
 * @param {number | null} row
 */
export function here(part, data, row) {
  part.where.textContent = row === null ? "Point at a patch" : `${data.place.has(row) ? "Patch " : ""}${placeName(data, row)}`;
  part.whereSub.textContent =
    row === null ? "to see which concepts its state is made of" : data.leftOut.has(row) ? "an attention sink" : "";
  const found = row === null ? [] : data.strongest(row, HERE).filter((concept) => concept.at[row] > 0);
  barRows(
    part.top,
    found.map((concept) => [data.name(concept), data.share(concept, row ?? 0), amount(concept.at[row ?? 0])]),
  );
}

/**
 * The colour scale and what the map shows in words.
 * @param {ConceptData} data
 * @param {number} grid
 * @param {Concept} concept
 */
export function scale(part, data, grid, concept) {
  part.title.replaceChildren(data.name(concept), " ", el("small", "concepts-number", `concept ${concept.concept}`));
  part.scaleLow.textContent = amount(concept.low);
  part.scaleHigh.textContent = amount(concept.top);
  part.mapNote.textContent = data.regions.length ? "The image tokens of this model have no patches of their own." : "";
  const { rows, cols } = data.grids[grid];
  const peak = concept.peakRow === null ? "nothing" : `most at ${placeName(data, concept.peakRow)}`;
  part.base.setAttribute(
    "aria-label",
    `The picture with ${rows} by ${cols} patches. Shown: how much of ${data.name(concept)} each holds, ${peak}.`,
  );
}
