// The table of features: rows in a given order, headers that sort, a pin per row.
// Reports what was clicked by callbacks.
/** @import { FeatureData } from "./data.js" */
import { el } from "../shared/elements.js";
import { amount, look, share } from "../shared/text.js";

const ROWS = 300; // more are not drawn; the table says so
/** @type {[key: string, header: string, meaning: string, asText: ((v: any) => string) | null][]} */
const COLUMNS = [
  ["feature", "no.", "Number of the feature in its SAE", String],
  ["label", "label", "What the feature seems to detect; select it to see where its name comes from", null],
  ["score", "score", "What the list is ranked by", amount],
  ["mean", "mean", "Mean activation over these tokens", amount],
  ["max", "max", "Highest activation on any of them", amount],
  ["frequency", "active on", "Share of these tokens on which the feature is active", share],
  ["density", "density", "Share of reference tokens, from many pictures and texts, on which it is active", share],
];

export class FeatureTable {
  /**
   * on: {select(number), pin(number), sort(key), signal}
   * @param {FeatureData} data
   */
  constructor(data, part, on) {
    this.data = data;
    this.part = part;
    this.on = on;
    this.lines = new Map();
    this.head();
    const listen = (type, fn) => part.tableBody.addEventListener(type, fn, { signal: on.signal });
    listen("click", (event) => {
      const line = event.target.closest("tr[data-feature]");
      if (line && !event.target.closest("label")) on.select(+line.dataset.feature);
    });
    listen("change", (event) => on.pin(+event.target.closest("tr").dataset.feature));
    listen("keydown", (event) => this.key(event));
    part.scroller.scrollTop = part.scroller.scrollLeft = 0;
  }

  head() {
    const line = el("tr");
    const pin = el("th", "features-pin");
    pin.append(el("span", "view-hidden", "on the picture"));
    pin.scope = "col";
    line.append(pin);
    for (const [key, text, about] of COLUMNS) {
      const th = el("th", `features-${key}`),
        button = el("button", "", text);
      th.scope = "col";
      th.dataset.key = key;
      button.type = "button";
      button.title = key === "score" ? `${about}: ${this.data.payload.rank_by}` : about;
      button.addEventListener("click", () => this.on.sort(key), { signal: this.on.signal });
      th.append(button);
      line.append(th);
    }
    this.part.tableHead.replaceChildren(line);
  }

  draw(entries, sort, nothing) {
    const { tableHead, tableBody } = this.part;
    const focused = tableBody.contains(document.activeElement) ? document.activeElement.closest("tr")?.dataset.feature : undefined;
    for (const th of tableHead.querySelectorAll("th[data-key]")) {
      const here = sort?.key === th.dataset.key;
      th.setAttribute("aria-sort", !here ? "none" : sort.down ? "descending" : "ascending");
    }
    this.highest = Math.max(...entries.map((entry) => entry.score), 0);
    const shown = entries.slice(0, ROWS);
    this.lines = new Map(shown.map((entry) => [entry.feature, this.line(entry)]));
    const nodes = [...this.lines.values()];
    if (!entries.length) nodes.push(this.message(nothing));
    if (entries.length > ROWS) nodes.push(this.message(`${entries.length - ROWS} more: use the filter to find them.`));
    tableBody.replaceChildren(...nodes);
    if (focused !== undefined) (this.lines.get(+focused) || tableBody.querySelector("tr[data-feature]"))?.focus({ preventScroll: true });
  }

  message(text) {
    const line = el("tr", "features-none"),
      td = el("td", "", text);
    td.colSpan = COLUMNS.length + 1;
    line.append(td);
    return line;
  }

  line(entry) {
    const line = el("tr"),
      pin = el("td", "features-pin"),
      label = el("label"),
      box = el("input");
    line.dataset.feature = entry.feature;
    box.type = "checkbox";
    box.tabIndex = -1;
    box.setAttribute("aria-label", `Keep ${this.data.name(entry)} on the picture as a layer`);
    label.append(box);
    pin.append(label);
    line.append(pin);
    for (const [key, , , text] of COLUMNS) {
      const td = el("td", `features-${key}`);
      if (key === "label") this.label(td, entry);
      else if (key === "score") this.score(td, entry);
      else td.textContent = text(entry[key]);
      line.append(td);
    }
    return line;
  }

  label(td, entry) {
    const name = el("span", entry.label ? "features-said" : "features-said view-dim");
    name.textContent =
      entry.label ||
      (entry.top.length
        ? `pushes up ${entry.top
            .slice(0, 3)
            .map((text) => look(text).text)
            .join(" · ")}`
        : "no name");
    name.title = [entry.label, entry.source].filter(Boolean).join(": ") || "no name";
    const inner = el("span", "features-named");
    inner.append(name);
    if (entry.dense) {
      const chip = el("span", "view-chip", "dense");
      chip.title = entry.dense;
      inner.append(chip);
    }
    td.append(inner);
  }

  score(td, entry) {
    const back = el("span", "view-bar-back"),
      bar = el("i");
    bar.style.width = `${this.highest > 0 ? Math.max(0, (entry.score / this.highest) * 100) : 0}%`;
    back.append(bar);
    const inner = el("span", "features-bar");
    const figure = this.data.payload.rank_by === "frequency" ? share : amount;
    inner.append(back, el("span", "", figure(entry.score)));
    td.append(inner);
  }

  // Follow the rest of the view: what is selected, what is kept on the picture, in which colours.
  mark(selected, layers, colours, full) {
    const first = this.lines.has(selected) ? selected : this.lines.keys().next().value;
    for (const [number, line] of this.lines) {
      const box = line.querySelector("input"),
        pinned = layers.includes(number);
      line.setAttribute("aria-selected", String(number === selected));
      line.tabIndex = number === first ? 0 : -1;
      box.tabIndex = line.tabIndex;
      box.checked = pinned;
      box.disabled = full && !pinned;
      box.parentNode.title = box.disabled
        ? `At most ${layers.length} features`
        : pinned
          ? "Take this layer off the picture"
          : "Keep on the picture as a layer";
      line.style.setProperty("--mark", colours.get(number) || "transparent");
    }
  }

  key(event) {
    const lines = [...this.lines.values()];
    const line = event.target.closest("tr[data-feature]");
    const at = lines.indexOf(line);
    if (at < 0) return;
    if ((event.key === "Enter" || event.key === " ") && event.target === line) {
      event.preventDefault();
      return this.on.select(+line.dataset.feature);
    }
    const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: lines.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (!lines[to]) return;
    for (const other of lines) other.tabIndex = other.querySelector("input").tabIndex = other === lines[to] ? 0 : -1;
    lines[to].focus();
  }
}
