// What is written around the picture, the grid of heads and the curves: it follows the state and never changes it.
/** @import { AttentionData } from "./data.js" */
import { el } from "../shared/elements.js";
import { placeName } from "../shared/payload.js";
import { look, plural, share } from "../shared/text.js";
import { drawKey, drawLines } from "./chart.js";
import { SHARES } from "./data.js";
import * as say from "./text.js";

const LINES = [
  { name: "picture", colour: "#0b84d8" },
  { name: "prompt", colour: "#e07b00" },
  { name: "answer", colour: "#1a9e6b" },
  { name: "sinks", colour: "#8b8f98", dash: "5 3" },
];

export class Readout {
  constructor(part, chips, matrix, canTest) {
    this.part = part;
    this.canTest = canTest;
    this.chips = chips;
    this.matrix = matrix;
  }

  // looked: what is known of the chosen map: {pointed, error, testing, untested, score, testable}; ink: {accent, dim, fg}
  /** @param {AttentionData} data */
  draw(data, state, looked, ink) {
    this.data = data;
    this.state = state;
    this.looked = looked;
    this.picture();
    this.trust();
    this.heads(ink);
    this.shares();
    this.words();
  }

  title(spec) {
    const method = this.data.methods.get(spec.method);
    return method.heads ? `${method.name.toLowerCase()}, ${say.heads(spec)}` : method.name.toLowerCase();
  }

  // The map's maximum in words.
  scale(spec, top) {
    return spec.method === "attention" ? `${share(top)} of its attention` : say.value(top);
  }

  picture() {
    const { state, data, part } = this;
    const { shown } = state;
    const method = data.methods.get(shown.method);
    const word = look(data.words[shown.token]).text;
    part.title.textContent = `“${word}”: ${this.title(shown)}`;
    part.about.textContent = method.about;
    part.overBox.hidden = part.all.hidden = !method.heads;
    part.sinksBox.hidden = !this.sinksMatter(data, state.method);
    part.over.disabled = state.head !== null;
    part.all.disabled = state.layer === null;
    part.scale.classList.toggle("view-off", !state.map);
    part.scaleLow.textContent = "0";
    part.scaleHigh.textContent = state.map ? this.scale(shown, state.top) : "";
    part.ramp.style.opacity = "0.75";
    part.pictureNote.textContent = [
      ...this.sinks(shown),
      ...(data.regions.length ? ["The image tokens of this model have no patches of their own, so there is no map on the picture."] : []),
    ].join(" ");
    part.base.setAttribute("aria-label", `The picture with the map of ${word}: ${this.title(shown)}`);
    part.stage.setAttribute(
      "aria-label",
      state.picking
        ? "Patches of the picture. Arrow keys move, Enter or Space crosses a patch out, Shift with arrow keys draws, Escape ends."
        : "Patches of the picture. Arrow keys move, Enter locks, Escape unlocks.",
    );
  }

  // Rollout runs through all tokens; the other maps show image tokens only.
  sinksMatter(data, method) {
    return method === "rollout" ? data.sinks.size > 0 : [...data.sinks].some((row) => data.column.has(row));
  }

  sinks(spec) {
    const { tower, decoder } = this.data.payload.sinks;
    const on = (rows) => rows.filter((row) => this.data.place.has(row)).length;
    const marks = [
      on(decoder) && `◇ ${plural(on(decoder), "attention sink")}`,
      on(tower) && `□ ${plural(on(tower), "register of the vision tower", "registers of the vision tower")}`,
    ].filter(Boolean);
    return marks.length ? [`${marks.join(", ")}${spec.sinks ? "." : ", left out of the map."}`] : [];
  }

  // What the map does not show, and how it did in the test.
  trust() {
    const { part, state } = this;
    const { error, testing, untested, score, testable } = this.looked;
    part.note.textContent = error || (state.map ? state.note : "Computing this map …");
    part.note.classList.toggle("view-bad", Boolean(error));
    part.trust.classList.toggle("attention-tested", this.canTest || this.data.scores.size > 0);
    part.test.hidden = Boolean(score) || !testable || testing;
    part.score.classList.toggle("view-bad", Boolean(untested));
    if (!score) {
      part.score.textContent = untested || (testing ? "Testing this map …" : "");
      return;
    }
    const figure = (name, value, random, better) => [
      `${name} `,
      el("b", "", say.auc(value)),
      el("span", "view-dim", ` (random map ${say.auc(random)}; ${better} is better)`),
    ];
    part.score.replaceChildren(
      ...figure("Insertion", score.insertion, score.random_insertion, "higher"),
      ", ",
      ...figure("deletion", score.deletion, score.random_deletion, "lower"),
      ". ",
      say.verdict(score),
    );
  }

  heads({ accent, dim, fg }) {
    const { state, data, part } = this;
    const { pointed } = this.looked;
    const { heads } = data.methods.get(state.method);
    const layer = heads && state.layer !== null ? data.layers.indexOf(state.layer) : null;
    const head = heads ? state.head : null;
    this.matrix.draw(data, { token: state.shown.token, layer, head, at: pointed }, accent, { dim, fg });
    part.matrixSub.textContent = `rows: layers · columns: heads · dark 0 %, bright ${share(this.matrix.top)}`;
    const cell = pointed ?? (layer === null ? null : [layer, head]);
    part.matrixSaid.textContent = cell
      ? this.cell(cell[0], cell[1])
      : "Point at a head to see its map and where its attention goes; click to keep it.";
  }

  // Where the attention of a head, or of a layer, goes.
  cell(layer, head) {
    const { data, state } = this;
    const { token } = state.shown;
    const of = (kind) => (head === null ? data.curve(kind, token)[layer] : data.share(kind, layer, head, token));
    const parts = SHARES.map((_, kind) => `${LINES[kind].name} ${share(of(kind))}`);
    return `Layer ${data.layerName(layer)}, ${head === null ? "all heads" : `head ${head}`}: ${parts.join(", ")}`;
  }

  shares() {
    const { state, data, part } = this;
    const { token, layer } = state.shown;
    const series = LINES.map((line, kind) => ({ ...line, values: data.curve(kind, token) }));
    const now = layer === null ? null : data.layers.indexOf(layer);
    const of = (values) => (now === null ? values.reduce((sum, v) => sum + v, 0) / data.L : values[now]);
    const figures = series.map(({ values }) => share(of(values)));
    drawLines(part.curve, {
      series,
      labels: data.layers.map(String),
      low: 0,
      high: 1,
      ticks: [
        [0, "0 %"],
        [0.5, "50 %"],
        [1, "100 %"],
      ],
      now,
      label: `Shares of attention over the layers, mean over heads: ${series.map(({ name }, i) => `${name} ${figures[i]}`).join(", ")}`,
    });
    drawKey(part.curveKey, series, figures);
  }

  // The words that read the patch pointed at.
  words() {
    const { state, part } = this;
    const row = state.shownRow;
    const values = row === null ? null : this.reading(row);
    const top = values ? Math.max(...values) : 0;
    this.chips.tint(values && top > 0 ? values.map((v) => v / top) : null);
    part.wordsNote.textContent =
      row === null ? "Point at a patch of the picture to see which words read it." : `${placeName(this.data, row)}: ${this.readers()}`;
  }

  reading(row) {
    const { data, state } = this;
    const { layer, head } = state.shown;
    return data.readers(row, layer === null ? null : data.layers.indexOf(layer), head);
  }

  readers() {
    const { data, state } = this;
    const values = this.reading(state.shownRow);
    const best = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, 3);
    const own = state.map ? state.map[data.column.get(state.shownRow)] : null;
    const value = own === null || state.shown.method === "attention" ? "" : `value ${say.value(own)}; `;
    return `${value}read most by ${best.map((q) => `${look(data.words[q]).text} ${share(values[q])}`).join(", ")} (attention, ${say.heads({ ...state.shown, over: "mean" })})`;
  }
}
