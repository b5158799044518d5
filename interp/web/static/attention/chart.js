// Lines over layers: a small chart with its key, in which one layer can be marked.
import { el, svg } from "../shared/elements.js";

const WIDTH = 460, // where the page does not lay out
  H = 150,
  LEFT = 42,
  RIGHT = 8,
  TOP = 8,
  BOTTOM = 20;

/**
 * Draw `series`, [{name, values, colour, dash}] with one value for each of `labels`, between `low` and `high`.
 * `ticks`: [value, text]; `now`: index of the marked layer, or null. Without `choose` nothing happens on a click.
 */
export function drawLines(node, { series, labels, low, high, ticks, now = null, label }) {
  const n = labels.length,
    W = node.clientWidth || WIDTH; // its own pixels, so that its text is as large on a phone
  const x = (i) => (n < 2 ? (LEFT + W - RIGHT) / 2 : LEFT + ((W - LEFT - RIGHT) * i) / (n - 1));
  const y = (v) => TOP + (H - TOP - BOTTOM) * (1 - (v - low) / (high - low || 1));
  node.setAttribute("viewBox", `0 0 ${W} ${H}`);
  node.setAttribute("aria-label", label);
  const parts = [];
  for (const [v, text] of ticks) {
    parts.push(svg("line", { x1: LEFT, x2: W - RIGHT, y1: y(v), y2: y(v), class: v === 0 ? "view-axis" : "view-axis view-faint" }));
    parts.push(svg("text", { x: LEFT - 5, y: y(v) + 3.5, "text-anchor": "end" }, text));
  }
  if (now !== null) parts.push(svg("line", { x1: x(now), x2: x(now), y1: TOP, y2: H - BOTTOM, class: "view-now" }));
  const every = Math.ceil((n * 30) / (W - LEFT - RIGHT));
  labels.forEach((text, i) => {
    const marked = i === now;
    const close = now !== null && !marked && Math.abs(x(i) - x(now)) < 18;
    if (!marked && (i % every || close)) return;
    parts.push(svg("text", { x: x(i), y: H - 5, "text-anchor": "middle", class: marked ? "view-now-text" : "" }, text));
  });
  for (const { values, colour, dash } of series) {
    const points = Array.from(values, (v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)},${y(v).toFixed(1)}`).join("");
    parts.push(svg("path", { d: points, class: "view-line", stroke: colour, ...(dash ? { "stroke-dasharray": dash } : {}) }));
    values.forEach((v, i) => {
      if (i === now || n < 14) parts.push(svg("circle", { cx: x(i), cy: y(v), r: i === now ? 3.5 : 1.8, fill: colour }));
    });
  }
  node.replaceChildren(...parts);
}

/** The index of the layer under a pointer, for a chart of `count` layers. */
export function layerUnder(node, event, count) {
  const { left, width } = node.getBoundingClientRect();
  return Math.min(count - 1, Math.max(0, Math.round(((event.clientX - left - LEFT) / (width - LEFT - RIGHT)) * (count - 1))));
}

/** The names of the lines with their colours and, if given, their values. */
export function drawKey(box, series, figures) {
  box.replaceChildren(
    ...series.map(({ name, colour, dash }, i) => {
      const item = el("span", "attention-key");
      const swatch = svg("svg", { viewBox: "0 0 18 8", width: 18, height: 8, "aria-hidden": "true" });
      swatch.append(
        svg("line", { x1: 0, x2: 18, y1: 4, y2: 4, stroke: colour, "stroke-width": 3, ...(dash ? { "stroke-dasharray": dash } : {}) }),
      );
      item.append(swatch, name);
      if (figures) item.append(" ", el("b", "", figures[i]));
      return item;
    }),
  );
}
