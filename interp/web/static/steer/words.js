// Chosen words: the probability of each, plain and steered, at every token of the plain answer, as pairs of bars.
// Calls host.point(i) and host.choose(i) for the token under the pointer.
/** @import { SteerData } from "./data.js" */
import { el, radios, svg, tokenElement } from "../shared/elements.js";
import { chance, power } from "../shared/figures.js";
import { look } from "../shared/text.js";

/** @type {[string, string][]} */
const SCALES = [
  ["linear", "Linear"],
  ["log", "Logarithmic"],
];
const FLOOR = -8; // powers of ten: the logarithmic scale ends here
const HEIGHT = 60,
  GAP = 0.14; // of a column
const LABEL = 34,
  COLUMN = 8; // pixels: below the first a token's text is unreadable, below the second its bars are

const heights = {
  linear: (p) => p,
  log: (p) => (p > 0 ? Math.max(0, 1 - Math.log10(p) / FLOOR) : 0),
};
const ticks = {
  linear: [
    [1, "100 %"],
    [0.5, "50 %"],
    [0, "0"],
  ],
  log: [
    [1, "100 %"],
    [0.5, "0.01 %"],
    [0, `${power(10 ** (FLOOR + 2))} %`],
  ],
};

// One path for all bars of a kind: 256 tokens and eight words make four thousand bars.
function bars(values, height, left, right) {
  return values
    .map((p, i) => `M${(i + left).toFixed(2)},${HEIGHT}V${(HEIGHT * (1 - height(p))).toFixed(2)}H${(i + right).toFixed(2)}V${HEIGHT}Z`)
    .join("");
}

export class Words {
  constructor(part, host, serial, signal) {
    this.part = part;
    this.host = host;
    this.scale = "linear";
    this.marks = [];
    radios(part.scale, `steer-scale-${serial}`, SCALES, this.scale, (key) => {
      this.scale = key;
      this.draw(this.data);
      host.drawn();
    });
    const on = (type, fn) => part.charts.addEventListener(type, fn, { signal });
    on("pointermove", (event) => {
      if (event.pointerType !== "touch") host.point(this.under(event));
    });
    on("pointerleave", () => host.point(null));
    on("click", (event) => {
      const i = this.under(event);
      if (i !== null) host.choose(i);
    });
  }

  // The token whose column is under the pointer, in any of the charts.
  under(event) {
    const chart = event.target.closest(".steer-chart svg");
    if (!chart) return null;
    const { left, width } = chart.getBoundingClientRect();
    const n = this.data.pair.tokens.length;
    return Math.min(n - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * n)));
  }

  /** @param {SteerData} data */
  draw(data) {
    const { part } = this;
    const { words, tokens } = data.pair;
    this.data = data;
    this.marks = [];
    part.wordsBox.hidden = !words.length;
    part.charts.style.setProperty("--least", `${tokens.length * COLUMN}px`);
    this.labels = el("div", "steer-row steer-labels");
    const names = el("div", "steer-chart");
    const columns = el("div", "steer-columns");
    columns.append(...tokens.map((text) => tokenElement(look(text))));
    names.append(el("span"), columns);
    this.labels.append(el("span", "steer-head"), names);
    this.labels.setAttribute("aria-hidden", "true"); // the tokens above are the accessible ones
    part.charts.replaceChildren(
      ...(words.length ? [...words.map((word, w) => this.row(word, data.peaks[w], data.moved[w])), this.labels] : []),
    );
  }

  row(word, peak, moved) {
    const { tokens } = this.data.pair;
    const n = tokens.length,
      height = heights[this.scale];
    const row = el("div", "steer-row"),
      head = el("div", "steer-head");
    const change = (at) => `${chance(word.plain[at])} → ${chance(word.steered[at])}`;
    const line = (at, why) => {
      const small = el("small", "view-dim"),
        out = el("p");
      small.append(`${why} `, tokenElement(look(tokens[at])), `, token ${at + 1}`);
      out.append(el("b", "", change(at)), " ", small);
      return out;
    };
    head.append(el("bdi", "", word.word), line(peak, "at"), ...(moved === peak ? [] : [line(moved, "changed most at")]));
    const chart = el("div", "steer-chart"),
      axis = el("div", "steer-axis");
    axis.append(...ticks[this.scale].map(([, text]) => el("span", "", text)));
    const box = svg("svg", { viewBox: `0 0 ${n} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    box.setAttribute("aria-label", `“${word.word}” at token ${peak + 1}, where it was likeliest without edits: ${change(peak)}`);
    const mark = svg("rect", { y: 0, width: 1, height: HEIGHT, class: "steer-mark" });
    this.marks.push(mark);
    box.append(
      mark,
      ...ticks[this.scale].map(([y]) => svg("line", { x1: 0, x2: n, y1: HEIGHT * (1 - y), y2: HEIGHT * (1 - y), class: "steer-tick" })),
      svg("path", { d: bars(word.plain, height, GAP, 0.5), class: "steer-bars" }),
      svg("path", { d: bars(word.steered, height, 0.5, 1 - GAP), class: "steer-bars steer-b" }),
    );
    chart.append(axis, box);
    row.append(head, chart);
    return row;
  }

  // Names are below the columns if there is room.
  fit() {
    const box = this.part.charts.querySelector(".steer-chart svg");
    if (box) this.labels.hidden = box.getBoundingClientRect().width / this.data.pair.tokens.length < LABEL;
  }

  // Scroll the column of a token into sight when the charts are wider than their box.
  reveal(i) {
    const box = this.part.charts,
      chart = box.querySelector(".steer-chart svg");
    if (!chart) return;
    const { left, right } = box.getBoundingClientRect(),
      own = chart.getBoundingClientRect();
    const x = own.left + ((i + 0.5) / this.data.pair.tokens.length) * own.width;
    const axis = chart.previousSibling.getBoundingClientRect().right;
    if (x < axis || x > right) box.scrollLeft += x - (left + right) / 2;
  }

  mark(i) {
    for (const mark of this.marks) mark.setAttribute("x", i);
  }
}
