// The list of features as signed bars around a common zero, each with its exact effect as a tick; below them the rest, and the SAE's error.
// Reports by callbacks which line is pointed at and which is chosen.
/** @import { AttributionData } from "./data.js" */
import { el } from "../shared/elements.js";
import { plural } from "../shared/text.js";
import * as say from "./text.js";

/** @type {[string, string, string][]} */
const COLUMNS = [
  ["label", "feature", "What the feature seems to detect, and its number in the SAE"],
  ["bar", "effect", "In logits. The bar is the estimate, the tick the exact effect"],
  ["score", "estimate", "Effect of its presence to first order, from one gradient for all features, in logits"],
  ["exact", "exact", "Measured: the word's lead less what it is when this feature alone is taken away, in logits"],
];

/** The key of a line: its feature's number, or "error". */
export const keyOf = (line) => (line.feature === null ? "error" : String(line.feature));

// A bar from zero to a value, within low to high; `exact` draws the tick.
export function signedBar(value, exact, low, high) {
  const span = high - low || 1;
  const at = (v) => (100 * (Math.min(high, Math.max(low, v)) - low)) / span;
  const box = el("span", "attribution-bar"),
    fill = el("i", value < 0 ? "attribution-down" : "attribution-up"),
    zero = el("b");
  fill.style.left = `${at(Math.min(0, value))}%`;
  fill.style.width = `${at(Math.max(0, value)) - at(Math.min(0, value))}%`;
  zero.style.left = `${at(0)}%`;
  box.append(fill, zero);
  if (exact !== null) {
    const tick = el("u");
    tick.style.left = `${at(exact)}%`;
    box.append(tick);
  }
  return box;
}

export class FeatureList {
  /**
   * on: {point(line or null), select(line), signal}
   * @param {AttributionData} data
   */
  constructor(data, part, on) {
    this.data = data;
    this.part = part;
    this.on = on;
    this.lines = new Map();
    this.byKey = new Map();
    const head = el("tr");
    for (const [key, text, about] of COLUMNS) {
      const th = el("th", `attribution-${key}`, text);
      th.scope = "col";
      th.title = about;
      head.append(th);
    }
    part.tableHead.replaceChildren(head);
    const listen = (type, fn) => part.tableBody.addEventListener(type, fn, { signal: on.signal });
    const at = (event) => this.byKey.get(event.target.closest("tr")?.dataset.key) ?? null;
    listen("pointerover", (event) => {
      if (event.pointerType !== "touch") on.point(at(event));
    });
    listen("pointerleave", () => on.point(null));
    listen("click", (event) => {
      const line = at(event);
      if (line) on.select(line);
    });
    listen("keydown", (event) => this.key(event));
  }

  // `extra`: a feature that was handed over and is not among the word's largest.
  draw(word, extra) {
    const { part, data } = this;
    const focused = part.tableBody.contains(document.activeElement) ? document.activeElement.closest("tr")?.dataset.key : undefined;
    const shown = [...word.lines, ...(extra ? [extra] : []), word.error];
    const values = [...shown.flatMap((line) => [line.score, line.exact ?? 0]), word.rest.score, 0];
    this.low = Math.min(...values);
    this.high = Math.max(...values);
    this.byKey = new Map(shown.map((line) => [keyOf(line), line]));
    this.lines = new Map(shown.map((line) => [keyOf(line), this.line(line, line === extra)]));
    const nodes = [...this.lines.values()];
    if (word.rest.count) {
      const rest = el("tr", "attribution-rest");
      rest.append(
        this.cell("label", el("span", "view-dim", plural(word.rest.count, "other feature"))),
        this.cell("bar", signedBar(word.rest.score, null, this.low, this.high)),
        this.cell("score", say.signed(word.rest.score)),
        this.cell("exact", "–"),
      );
      nodes.splice(nodes.length - 1, 0, rest);
    }
    part.tableBody.replaceChildren(...nodes);
    part.scroller.scrollTop = 0;
    if (focused !== undefined) (this.lines.get(focused) ?? nodes[0]).focus({ preventScroll: true });
    this.key0 = data.name(shown[0]);
  }

  cell(key, content) {
    const td = el("td", `attribution-${key}`);
    td.append(content);
    return td;
  }

  line(line, extra) {
    const row = el("tr", line.feature === null ? "attribution-error" : "");
    row.dataset.key = keyOf(line);
    const name = el("span", "attribution-named");
    const said = el("span", line.label ? "attribution-said" : "attribution-said view-dim", this.data.name(line));
    said.title = line.source ? `${this.data.name(line)}: ${line.source}` : this.data.name(line);
    name.append(said);
    if (line.feature !== null && line.label) name.append(el("small", "attribution-number", `#${line.feature}`));
    for (const [text, about] of [
      [line.dense && "dense", line.dense],
      [extra && "not among the largest", "Chosen elsewhere; its exact effect on this word was not measured"],
    ]) {
      if (!text) continue;
      const chip = el("span", "view-chip attribution-warn", text);
      chip.title = about;
      name.append(chip);
    }
    row.append(
      this.cell("label", name),
      this.cell("bar", signedBar(line.score, line.exact, this.low, this.high)),
      this.cell("score", say.signed(line.score)),
      this.cell("exact", say.signed(line.exact)),
    );
    row.setAttribute(
      "aria-label",
      `${this.data.name(line)}: estimate ${say.signed(line.score)}${line.exact === null ? "" : `, exact ${say.signed(line.exact)}`}`,
    );
    return row;
  }

  mark(selected, shown) {
    const first = this.lines.has(selected) ? selected : this.lines.keys().next().value;
    for (const [key, row] of this.lines) {
      row.setAttribute("aria-selected", String(key === selected));
      row.classList.toggle("attribution-shown", key === shown);
      row.tabIndex = key === first ? 0 : -1;
    }
  }

  key(event) {
    const rows = [...this.lines.values()];
    const row = event.target.closest("tr[data-key]");
    const at = rows.indexOf(row);
    if (at < 0) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return this.on.select(this.byKey.get(row.dataset.key));
    }
    const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (!rows[to]) return;
    for (const other of rows) other.tabIndex = other === rows[to] ? 0 : -1;
    rows[to].focus();
    this.on.select(this.byKey.get(rows[to].dataset.key));
  }
}
