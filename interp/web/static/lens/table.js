// The token by layer table: one row per prompt and answer token, the run of image tokens as one row.
// Only the rows in sight are in the page. Reports which cell was pointed at or clicked by callbacks.
/** @import { LensData } from "./data.js" */
import { el, tokenElement } from "../shared/elements.js";
import { tokenRuns } from "../shared/payload.js";
import { look } from "../shared/text.js";

const HEIGHT = 26; // of a row in CSS pixels; lens.css has the same number
const ALL = 300; // up to so many, every row is in the page
const AROUND = 12; // rows kept above and below those in sight

export class TokenTable {
  /**
   * on: {point(row, layer) | point(null), pick(row, layer)}; row is null in the image row when no patch is shown
   * @param {LensData} data
   */
  constructor(data, part, on) {
    this.data = data;
    this.part = part;
    this.on = on;
    this.cells = new Map();
    this.rows = tokenRuns(data);
    this.head();
    const { scroller, tableBody } = part;
    const listen = (node, type, fn) => node.addEventListener(type, fn, { signal: on.signal });
    listen(tableBody, "pointerover", (event) => {
      if (event.pointerType !== "touch") this.hit(event, on.point);
    });
    listen(tableBody, "pointerleave", () => on.point(null));
    listen(tableBody, "click", (event) => this.hit(event, on.pick));
    listen(scroller, "scroll", () => this.draw());
    listen(scroller, "keydown", (event) => this.key(event));
    listen(scroller, "blur", () => on.point(null));
  }

  // The same rows through another lens, at the same place of the scroller.
  through(data) {
    this.data = data;
    this.from = this.to = undefined;
    this.head();
    this.draw();
  }

  head() {
    const line = el("tr");
    const corner = el("th", "", "token ");
    corner.scope = "col";
    if (this.data.next) corner.append(el("span", "lens-next", "→ next token"));
    line.append(corner);
    for (let l = 0; l < this.data.L; l++) {
      const th = el("th", "", this.data.layerName(l));
      th.scope = "col";
      line.append(th);
    }
    this.part.tableHead.replaceChildren(line);
  }

  // The position that a table row stands for; for the run of patches, the patch shown now.
  rowOf(entry, shown) {
    if (entry.row !== undefined) return entry.row;
    return shown !== null && shown >= entry.from && shown <= entry.to ? shown : null;
  }

  indexOf(row) {
    return this.rows.findIndex((e) => (e.row !== undefined ? e.row === row : row >= e.from && row <= e.to));
  }

  hit(event, callback) {
    const cell = event.target.closest("td,th"),
      line = event.target.closest("tr[data-i]");
    if (!cell || !line) return;
    const row = this.rowOf(this.rows[+line.dataset.i], this.patch);
    if (row !== null) callback(row, cell.dataset.l === undefined ? null : +cell.dataset.l);
  }

  key(event) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Enter" && this.shown !== null) {
      this.on.pick(this.shown, this.layer);
      event.preventDefault();
    }
    if (!move) return;
    event.preventDefault();
    const { rows, data } = this;
    let i = this.shown === null ? 0 : Math.max(0, this.indexOf(this.shown));
    do i += move[0];
    while (rows[i] && this.rowOf(rows[i], this.patch) === null);
    if (!rows[i]) return;
    this.on.point(this.rowOf(rows[i], this.patch), Math.min(data.L - 1, Math.max(0, this.layer + move[1])), true);
    this.reveal(i);
  }

  reveal(i) {
    const { scroller, tableHead } = this.part;
    const top = i * HEIGHT,
      view = scroller.clientHeight - tableHead.offsetHeight;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + HEIGHT > scroller.scrollTop + view) scroller.scrollTop = top + HEIGHT - view;
    this.revealLayer();
  }

  revealLayer() {
    const { scroller, tableHead } = this.part;
    const th = tableHead.rows[0].cells[this.layer + 1],
      label = tableHead.rows[0].cells[0].offsetWidth;
    if (th.offsetLeft - label < scroller.scrollLeft) scroller.scrollLeft = th.offsetLeft - label;
    else if (th.offsetLeft + th.offsetWidth > scroller.scrollLeft + scroller.clientWidth)
      scroller.scrollLeft = th.offsetLeft + th.offsetWidth - scroller.clientWidth;
  }

  // Render the rows in sight (all rows of a small table) with spacers for the rest.
  draw() {
    const { scroller, tableBody } = this.part;
    let from = 0,
      to = this.rows.length;
    if (to > ALL) {
      const first = Math.floor(scroller.scrollTop / HEIGHT);
      from = Math.max(0, first - AROUND);
      to = Math.min(to, first + Math.ceil((scroller.clientHeight || 400) / HEIGHT) + AROUND);
    }
    if (from === this.from && to === this.to) return;
    this.from = from;
    this.to = to;
    this.lines = new Map();
    const nodes = [];
    for (let i = from; i < to; i++) {
      const line = this.line(i);
      this.lines.set(i, line);
      nodes.push(line);
    }
    tableBody.replaceChildren(this.spacer(from), ...nodes, this.spacer(this.rows.length - to));
    this.mark();
  }

  spacer(count) {
    const line = el("tr", "lens-spacer");
    line.style.height = `${count * HEIGHT}px`;
    line.hidden = count === 0;
    return line;
  }

  line(i) {
    const entry = this.rows[i],
      { data } = this;
    const line = el("tr");
    line.dataset.i = i;
    const th = el("th");
    th.scope = "row";
    if (entry.row === undefined) {
      line.className = "lens-image-row";
      th.append(`[${entry.count} image patch${entry.count === 1 ? "" : "es"}]`);
    } else {
      line.className = data.kinds[entry.row + 1] === "a" ? "lens-says-answer" : "";
      const read = data.regionOf.get(entry.row);
      const of = read
        ? el("span", "view-token view-dim", `${read.index + 1} · ${read.region.name}`)
        : tokenElement(look(data.tokens[entry.row]));
      th.append(of);
      if (data.next) {
        const next = el("span", "lens-next", "→ ");
        next.append(tokenElement(look(data.tokens[entry.row + 1])));
        th.append(" ", next);
      }
    }
    line.append(th);
    for (let l = 0; l < data.L; l++) {
      const td = el("td");
      td.dataset.l = String(l);
      line.append(td);
    }
    this.fill(line, entry.row === undefined ? null : entry.row);
    return line;
  }

  fill(line, row) {
    const { data } = this;
    for (let l = 0; l < data.L; l++) {
      const td = line.children[l + 1];
      if (row === null) {
        td.textContent = "";
        td.style.removeProperty("--p");
        td.className = "";
        continue;
      }
      const look = data.look(data.id(l, row));
      td.textContent = look.text;
      td.style.setProperty("--p", data.share(data.p(l, row), l).toFixed(3));
      td.className = `${look.dim ? "view-dim " : ""}${l === data.firstAt?.[row] ? "lens-first" : ""}`;
    }
  }

  // Follow the rest of the view: which row and layer are shown, which is locked, which patch fills the image row.
  follow(state, patch) {
    this.shown = state.shownRow;
    this.layer = state.shownLayer;
    this.locked = state.locked;
    this.patch = patch;
    this.draw();
    this.mark();
  }

  mark() {
    const { tableHead, tableBody } = this.part;
    if (!this.lines) return;
    tableBody.querySelectorAll(".lens-here,.lens-locked").forEach((n) => {
      n.classList.remove("lens-here", "lens-locked");
    });
    tableHead.querySelectorAll(".lens-here").forEach((n) => {
      n.classList.remove("lens-here");
    });
    tableHead.rows[0].cells[this.layer + 1]?.classList.add("lens-here");
    const shownAt = this.shown === null ? -1 : this.indexOf(this.shown);
    for (const [i, line] of this.lines) {
      const entry = this.rows[i];
      if (entry.row === undefined && this.patch !== line.patch) {
        line.patch = this.patch;
        this.fill(line, this.rowOf(entry, this.patch));
      }
      if (i === shownAt) {
        line.classList.add("lens-here");
        line.children[this.layer + 1].classList.add("lens-here");
        if (this.shown === this.locked) line.classList.add("lens-locked");
      }
    }
  }
}
