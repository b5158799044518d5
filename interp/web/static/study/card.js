// A feature in words and figures: its name and where that comes from, scores, histogram, neighbours, promoted words.
/** @import { StudyFacts } from "../payloads.js" */
/** @import { StudiedFeature } from "./data.js" */
import { el, svg } from "../shared/elements.js";
import { amount } from "../shared/text.js";
import * as Data from "./data.js";

const WIDTH = 320,
  HEIGHT = 110,
  BOTTOM = 16;

/**
 * @param {{ feature: number, label: string }} one
 */
export function named({ feature, label }) {
  const both = el("span");
  both.append(el("span", label ? "" : "view-dim", label || "no label"), " ", el("small", "study-number", `#${feature}`));
  return both;
}

/**
 * @param {Record<string, any>} part
 * @param {StudiedFeature} feature
 * @param {StudyFacts} study
 */
export function card(part, feature, study) {
  part.name.replaceChildren(named(feature));
  part.category.textContent = feature.category;
  part.category.hidden = !feature.category;
  part.source.textContent = feature.label ? `Label: ${feature.source || "of unknown source"}` : "It has no label in this study.";
  part.explanation.textContent = feature.explanation === feature.label ? "" : feature.explanation;
  part.explanation.hidden = !part.explanation.textContent;
  part.scores.replaceChildren(
    ...feature.scores.map((score) => {
      const { said, beside } = Data.scored(score);
      const item = el("li");
      item.append(el("b", "", said), ...(beside ? [" ", el("span", "view-dim", `(${beside})`)] : []));
      return item;
    }),
    ...feature.undefined.map((why) => el("li", "view-dim", `not scored, ${why}`)),
  );
  part.scoreBox.hidden = !part.scores.children.length;
  part.counts.textContent = Data.counts(feature, study);
  words(part.promotes, feature.promotes);
  words(part.suppresses, feature.suppresses);
  part.wordBox.hidden = !feature.promotes.length;
  near(part, feature);
  histogram(part, feature);
}

/**
 * @param {HTMLElement} box
 * @param {string[]} some
 */
function words(box, some) {
  box.replaceChildren(...some.map((word) => el("span", "study-word", word)));
}

/**
 * @param {Record<string, any>} part
 * @param {StudiedFeature} feature
 */
function near(part, { neighbours }) {
  part.near.replaceChildren(
    ...neighbours.map((one) => {
      const item = el("li"),
        button = el("button");
      button.type = "button";
      button.dataset.feature = String(one.feature);
      button.title = `cosine ${one.cosine.toFixed(3)} of the decoder directions`;
      button.append(named(one), " ", el("small", "", one.cosine.toFixed(2).replace("-", "−")));
      item.append(button);
      return item;
    }),
  );
  part.nearBox.hidden = !neighbours.length;
}

/**
 * @param {Record<string, any>} part
 * @param {StudiedFeature} feature
 */
function histogram(part, { histogram: counted }) {
  const { bars, most, width: bin } = Data.bars(counted);
  part.histogramBox.hidden = !bars.length;
  if (!bars.length) return;
  const room = HEIGHT - BOTTOM;
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  plot.setAttribute("aria-label", `Tokens by activation; the highest bar stands for ${most} tokens`);
  for (const { x, width, low, high, kind, said } of bars) {
    const at = { x: x * WIDTH, y: room * (1 - high), width: Math.max(1, width * WIDTH - 1), height: Math.max(0.5, room * (high - low)) };
    const bar = svg("rect", { ...at, class: `study-bar study-${kind}` });
    bar.append(svg("title", {}, said));
    plot.append(bar);
  }
  plot.append(svg("line", { x1: 0, x2: WIDTH, y1: room, y2: room, class: "study-axis" }));
  const { edges } = counted;
  const middle = Math.floor(edges.length / 2);
  for (const [i, anchor] of /** @type {[number, string][]} */ ([
    [0, "start"],
    ...(edges.length > 4 ? [[middle, "middle"]] : []),
    [edges.length - 1, "end"],
  ])) {
    plot.append(svg("text", { x: WIDTH * bin * i, y: HEIGHT - 3, "text-anchor": anchor, class: "study-tick" }, amount(edges[i])));
  }
  part.histogram.replaceChildren(plot);
  part.histogramNote.textContent = `The highest bar stands for ${most.toLocaleString("en")} tokens.`;
}
