// One line of the list in detail: its name, its scores on the text, what is listed at a place of the picture, and the words around the map.
/** @import { AttributionData, Line, Word } from "./data.js" */
import { el, tokenElement } from "../shared/elements.js";
import { placeName, tokenRuns } from "../shared/payload.js";
import { look, plural, safeLink } from "../shared/text.js";
import { signedBar } from "./list.js";
import * as say from "./text.js";

const HERE = 4; // lines in the readout of a place; view.css keeps room for as many

export function named(data, line) {
  const both = el("span");
  both.append(el("span", line.label ? "" : "view-dim", data.name(line)));
  if (line.feature !== null && line.label) both.append(" ", el("small", "attribution-number", `#${line.feature}`));
  return both;
}

// Estimate and measurement, and how far to trust the one by the other.
export function sums(part, data, word) {
  const { raw, lines } = word;
  const { margin, all_features: features, all_missed: error, total } = raw;
  const quoted = (text) => el("b", "", `“${look(text).text}”`);
  part.headline.replaceChildren(quoted(data.answer[raw.spec.token]), ` ${say.lead(margin)} logits over `, quoted(raw.other));
  part.sum.textContent =
    `The estimate sums to ${say.signed(total.score)} of ${say.signed(total.exact)} logits: ${say.signed(features.score)} from features, ${say.signed(error.score)} from the SAE's error. ` +
    `Measured, each taken away alone: ${say.signed(features.exact)} and ${say.signed(error.exact)}.`;
  const few = raw.pearson === null ? "" : `correlation ${say.correlation(raw.pearson)}`;
  const same = raw.overlap === null ? "" : `${Math.round(100 * raw.overlap)} % of the largest are the same`;
  part.trust.textContent = `${[few, same].filter(Boolean).length ? `Estimate and exact effect of the ${plural(lines.length, "listed feature")}: ${[few, same].filter(Boolean).join(", ")}. ` : ""}${raw.note}`;
}

export function card(part, data, line) {
  part.name.replaceChildren(named(data, line));
  part.nameChips.replaceChildren(...(line.dense ? [el("span", "view-chip attribution-warn", `dense: ${line.dense}`)] : []));
  part.source.textContent =
    line.feature === null
      ? "The part of the states that no feature of this SAE reproduces. What it carried has no name here."
      : line.label
        ? `Name from: ${line.source || "no source given"}`
        : line.source || "No name was found for this feature.";
  const href = line.link ? safeLink(line.link) : null;
  part.links.replaceChildren();
  if (!href) return;
  const link = el("a", "", "Neuronpedia");
  Object.assign(link, { href, target: "_blank", rel: "noopener noreferrer" });
  part.links.append(link);
}

/**
 * The tokens of prompt and answer up to the row that says the word, tinted by the line's scores.
 * @param {AttributionData} data
 * @param {Line} line
 * @param {Word} word
 */
export function strip(part, data, line, word) {
  const row = data.start + word.spec.token - 1;
  const nodes = tokenRuns(data)
    .filter((run) => (run.row ?? run.from) <= row)
    .map((run) => {
      if (run.row === undefined) {
        let sum = 0,
          count = 0;
        for (let i = run.from; i <= run.to; i++) {
          if (data.leftOut.has(i)) continue;
          sum += line.at[i];
          count += +(line.at[i] !== 0);
        }
        return el(
          "span",
          "attribution-run",
          `[${plural(run.count, "image patch", "image patches")}: ${count ? `${say.signed(sum)} on ${count}` : "0"}]`,
        );
      }
      const value = line.at[run.row],
        left = data.leftOut.has(run.row);
      const node = el("span", `attribution-token${value < 0 ? " attribution-minus" : ""}${left ? " attribution-left-out" : ""}`);
      node.append(tokenElement(look(data.tokens[run.row])));
      node.style.setProperty("--p", line.textPeak > 0 && !left ? Math.min(1, Math.abs(value) / line.textPeak).toFixed(3) : "0");
      node.title = `position ${run.row}: ${say.signed(value)}${left ? " (left out of the sums)" : ""}`;
      if (run.row === row) node.classList.add("attribution-row");
      return node;
    });
  part.strip.replaceChildren(...nodes, el("span", "attribution-run", "→"), tokenElement(look(data.answer[word.spec.token])));
  part.stripNote.textContent =
    line.textPeak > 0
      ? `On the text: strongest tint ${say.signed(line.textPeak).slice(1)}; underlined where it lowered the word.`
      : "No effect from the text.";
  const left = [...data.leftOut].filter((i) => i <= row);
  const said = left.slice(0, 6).map((i) => (data.place.has(i) ? `patch ${placeName(data, i)}` : look(data.tokens[i]).text));
  part.leftOut.textContent = left.length
    ? `Dashed: left out of the sums (${said.join(", ")}${left.length > 6 ? ` and ${left.length - 6} more` : ""}; beginning of text and attention sinks).`
    : "";
}

// The lines with a score at a place.
export function here(part, data, word, row) {
  const known = row !== null;
  const lines = known ? data.at([...word.lines, word.error], row) : [];
  part.where.textContent = known ? `${data.place.has(row) ? "Patch " : ""}${placeName(data, row)}` : "Point at a patch";
  const sum = lines.reduce((total, line) => total + line.at[row], 0);
  part.whereSub.textContent = known
    ? lines.length
      ? `${say.signed(sum)} from ${plural(lines.length, "line")} of the list, estimated`
      : "nothing of the list was read from here"
    : "to see what was read from there";
  const values = [0, ...lines.slice(0, HERE).map((line) => line.at[row])];
  const low = Math.min(...values),
    high = Math.max(...values);
  part.top.replaceChildren(
    ...lines.slice(0, HERE).map((line) => {
      const item = el("li");
      item.append(named(data, line), signedBar(line.at[row], null, low, high), el("span", "attribution-figure", say.signed(line.at[row])));
      return item;
    }),
  );
}

// The colour scale, and what the map does not show in words.
export function scale(part, data, grid, line) {
  part.scale.classList.toggle("view-off", !(line.peak > 0));
  part.scaleLow.textContent = `−${say.signed(line.peak).slice(1)}`;
  part.scaleHigh.textContent = `+${say.signed(line.peak).slice(1)}`;
  const elsewhere = line.peak > 0 && ![...data.grids[grid].positions].some((row) => line.at[row] !== 0);
  part.mapNote.textContent = data.regions.length
    ? "The image tokens of this model have no patches of their own; see the tokens below."
    : elsewhere
      ? `Nothing was read from this grid; most from ${data.grids[data.place.get(line.peakRow).grid].name}.`
      : line.peak > 0
        ? ""
        : "Nothing was read from the picture, only from the text below.";
  const { rows, cols } = data.grids[grid];
  const peak = line.peakRow === null ? "nothing" : `most at ${placeName(data, line.peakRow)}, ${say.signed(line.at[line.peakRow])}`;
  part.base.setAttribute(
    "aria-label",
    `The picture with ${rows} by ${cols} patches. Shown: what was read from each by ${data.name(line)}, ${peak}.`,
  );
}
