// Small parts that show one place: words with bars, a curve over the layers.
// Every text from a model, a prompt or a token goes in by textContent.

import { barRows, el, svg, tokenElement } from "../shared/elements.js";
import { placeName } from "../shared/payload.js";
import { look } from "../shared/text.js";

const TOPS = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1];

// Lines over the layers. series: [{values, className}]; NaN is a gap, with a hollow mark on the baseline. A similarity below 0 is drawn on it.
export function drawCurve(node, data, series, layer) {
  const W = 320,
    H = 104,
    left = 34,
    right = 8,
    top = 8,
    bottom = 18;
  const highest = Math.max(...series.flatMap((s) => Array.from(s.values, (v) => v || 0)));
  const scale = TOPS.find((v) => v >= highest) || 1;
  const x = (i) => left + (data.L < 2 ? 0.5 : i / (data.L - 1)) * (W - left - right);
  const y = (v) => top + (1 - Math.max(0, v) / scale) * (H - top - bottom);
  node.setAttribute("viewBox", `0 0 ${W} ${H}`);
  const parts = [
    svg("line", { x1: left, x2: W - right, y1: y(0), y2: y(0), class: "view-axis" }),
    svg("line", { x1: left, x2: W - right, y1: y(scale), y2: y(scale), class: "view-axis view-faint" }),
    svg("text", { x: left - 9, y: y(scale) + 4, "text-anchor": "end" }, data.similar ? String(scale) : `${scale * 100}%`),
    svg("text", { x: left - 9, y: y(0) + 3, "text-anchor": "end" }, "0"),
    svg("line", { x1: x(layer), x2: x(layer), y1: top, y2: y(0), class: "view-now" }),
  ];
  const ends = [0, data.L - 1].filter((i) => Math.abs(x(i) - x(layer)) > 26);
  for (const i of new Set([...ends, layer])) {
    const anchor = i === 0 ? "start" : i === data.L - 1 ? "end" : "middle";
    parts.push(
      svg(
        "text",
        { x: i === 0 ? x(i) - 4 : x(i), y: H - 5, "text-anchor": anchor, class: i === layer ? "view-now-text" : "" },
        data.layerName(i),
      ),
    );
  }
  for (const { values, className } of series) {
    let path = "",
      pen = "M";
    values.forEach((v, i) => {
      if (Number.isNaN(v)) {
        pen = "M";
        return;
      }
      path += `${pen}${x(i).toFixed(1)},${y(v).toFixed(1)}`;
      pen = "L";
    });
    if (path) parts.push(svg("path", { d: path, class: `view-line ${className}` }));
    values.forEach((v, i) => {
      if (Number.isNaN(v)) parts.push(svg("circle", { cx: x(i), cy: y(0), r: 2, class: `view-gap ${className}` }));
      else if (i === layer || data.L < 14)
        parts.push(svg("circle", { cx: x(i), cy: y(v), r: i === layer ? 4 : 2, class: `view-dot ${className}` }));
    });
  }
  node.replaceChildren(...parts);
}

function facts(node, pairs) {
  node.replaceChildren(
    ...pairs.flatMap(([name, value]) => {
      const dd = el("dd");
      dd.append(value);
      return [el("dt", "", name), dd];
    }),
  );
}

// The sentences in which the contextual lens found its words.
function drawContexts(list, contexts) {
  list.hidden = !contexts.length;
  list.replaceChildren(
    ...contexts.map(({ before, word, after, layer }) => {
      const item = el("li");
      item.append(before, el("b", "", word), after, " ", el("small", "", layer < 0 ? "input" : `layer ${layer}`));
      return item;
    }),
  );
}

export function drawReadout(part, data, row, layer, status) {
  part.where.replaceChildren(document.createTextNode(data.place.has(row) ? "Patch " : ""), document.createTextNode(placeName(data, row)));
  if (!data.place.has(row)) part.where.append(" ", tokenElement(look(data.tokens[row])));
  if (status) part.where.append(el("span", "view-chip", status));
  part.whereSub.textContent = `position ${row} · layer ${data.layerName(layer)} · ${data.next ? "would say next" : "reads here"}`;
  const words = data.words(layer, row);
  barRows(
    part.top,
    words.map(({ id, p }) => [tokenElement(data.look(id)), data.share(p, layer), data.figure(p)]),
  );
  drawContexts(part.contexts, data.contexts(layer, row));
  const values = data.curve(row, words[0].id);
  drawCurve(part.curve, data, [{ values, className: "view-a" }], layer);
  const missing = values.filter((v) => Number.isNaN(v)).length;
  part.curveNote.replaceChildren(
    tokenElement(data.look(words[0].id)),
    document.createTextNode(
      ` over the layers${missing ? `; hollow marks: not in the top ${data.k} at ${missing} of ${data.L} layers` : ""}`,
    ),
  );
  part.curve.setAttribute(
    "aria-label",
    `${data.similar ? "Similarity" : "Probability"} of ${data.look(words[0].id).text} over the layers; ${data.figure(words[0].p)} at layer ${data.layerName(layer)}`,
  );
  const last = data.L - 1,
    text = !data.place.has(row);
  facts(part.numbers, [
    ...(data.entropyQ ? [["entropy", `${data.entropy(layer, row).toFixed(2)} nats`]] : []),
    [data.next ? "last layer says" : "last layer reads", tokenElement(data.look(data.id(last, row)))],
    ...(data.firstAt ? [["on top from layer", data.layerName(data.firstAt[row])]] : []),
    ...(text && data.next ? [["really next", tokenElement(look(data.tokens[row + 1]))]] : []),
  ]);
}
