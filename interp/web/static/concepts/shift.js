// What fine-tuning moved: recovery over consistency as a scatter, and for the selected concept its words and answers before and after.
/** @import { ConceptData } from "./data.js" */
import { el, svg } from "../shared/elements.js";
import { plural } from "../shared/text.js";
import { ticks } from "./data.js";
import * as say from "./text.js";
import { thumb } from "./thumb.js";

const WIDTH = 340,
  HEIGHT = 240,
  LEFT = 56,
  BOTTOM = 36,
  TOP = 10;

const FIGURES = ["moved", "consistency", "recovery"];

export class Shift {
  // on: {select(concept), signal}
  constructor(part, on) {
    this.part = part;
    const chosen = (event) => event.target.closest("[data-concept]")?.dataset.concept;
    for (const node of [part.scatter, part.moved]) {
      node.addEventListener("click", (event) => chosen(event) !== undefined && on.select(+chosen(event)), { signal: on.signal });
    }
  }

  /** @param {ConceptData} data */
  begin(data) {
    const { part } = this;
    const { shift } = data;
    this.data = data;
    part.shift.hidden = !shift;
    if (!shift) return;
    part.shiftHead.textContent = `${shift.before} → ${shift.after}`;
    const r = shift.correlation;
    part.shiftNote.textContent =
      `${plural(shift.compared, "state")} of the dictionary's pictures in both models. ` +
      (r === null
        ? "Too few concepts moved to correlate."
        : `Recovery and consistency correlate at ${say.figure(r)} over ${data.points.length} concepts.`);
    const head = el("div", "concepts-row concepts-row-head");
    head.append(el("span", "view-key", "concept"), ...FIGURES.map((key) => el("span", "view-key", key)));
    part.moved.replaceChildren(head, ...shift.concepts.map((item) => this.row(item)));
    this.scatter();
  }

  row(item) {
    const { data } = this;
    const row = el("button", "concepts-row");
    row.type = "button";
    row.dataset.concept = String(item.concept);
    row.append(el("span", "concepts-row-name", data.name(item)));
    for (const key of FIGURES) row.append(el("b", "", say.figure(item[key === "moved" ? "relative" : key])));
    row.setAttribute("aria-label", [data.name(item), ...FIGURES.map((key, i) => `${key} ${row.children[i + 1].textContent}`)].join(", "));
    return row;
  }

  scatter() {
    const { part, data } = this;
    const { points } = data;
    const box = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "concepts-scatter-plot" });
    box.setAttribute("aria-label", `Recovery over consistency of ${plural(points.length, "concept")}.`);
    const ends = (values) => [Math.min(0, ...values), Math.max(1, ...values)];
    const [x0, x1] = ends(points.map(({ consistency }) => consistency));
    const [y0, y1] = ends(points.map(({ recovery }) => recovery));
    const x = (v) => LEFT + ((v - x0) / (x1 - x0)) * (WIDTH - LEFT - 12);
    const y = (v) => HEIGHT - BOTTOM - ((v - y0) / (y1 - y0)) * (HEIGHT - BOTTOM - TOP);
    for (const v of ticks(x0, x1)) {
      box.append(svg("line", { class: "view-axis view-faint", x1: x(v), x2: x(v), y1: TOP, y2: HEIGHT - BOTTOM }));
      box.append(svg("text", { x: x(v), y: HEIGHT - BOTTOM + 14, "text-anchor": "middle" }, say.figure(v)));
    }
    for (const v of ticks(y0, y1)) {
      box.append(svg("line", { class: "view-axis view-faint", x1: LEFT, x2: WIDTH - 12, y1: y(v), y2: y(v) }));
      box.append(svg("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, say.figure(v)));
    }
    box.append(svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "consistency of the shift"));
    box.append(
      svg("text", { x: 10, y: HEIGHT / 2 - 12, "text-anchor": "middle", transform: `rotate(-90 10 ${HEIGHT / 2 - 12})` }, "recovery"),
    );
    const most = Math.max(...points.map(({ relative }) => relative), 1e-9);
    for (const point of points) {
      const radius = 3 + 5 * Math.sqrt(point.relative / most);
      const dot = svg("circle", { class: "concepts-dot", cx: x(point.consistency), cy: y(point.recovery), r: radius });
      dot.setAttribute("data-concept", String(point.concept));
      dot.append(
        svg(
          "title",
          {},
          `${data.name(data.concepts[point.concept])}: consistency ${say.figure(point.consistency)}, recovery ${say.figure(point.recovery)}`,
        ),
      );
      box.append(dot);
    }
    part.scatter.replaceChildren(box);
  }

  /** @param {number} concept */
  select(concept) {
    const { part, data } = this;
    if (!data?.shift) return;
    for (const node of [...part.scatter.querySelectorAll("circle"), ...part.moved.children]) {
      node.classList.toggle("concepts-chosen", node.dataset.concept === String(concept));
    }
    const item = data.shifted.get(concept);
    part.movedCard.hidden = !item;
    if (!item) return;
    part.movedName.textContent = data.name(item);
    const list = (words) => (words.length ? words.join(", ") : "none");
    part.movedWords.replaceChildren(
      el("span", "view-key", "gained"),
      el("ins", "", list(item.gained)),
      el("span", "view-key", "lost"),
      el("del", "", list(item.lost)),
    );
    part.movedFacts.textContent = item.size
      ? `Moved by ${say.figure(item.relative)} of its states' length. Consistency ${say.figure(item.consistency)}, recovery ${say.figure(item.recovery)}, cosine with its match ${say.figure(item.cosine)}.`
      : "No state of these pictures has most of it.";
    const original = data.concepts[concept];
    const figures = original.examples.map((example, i) => {
      const figure = el("figure", "concepts-example"),
        caption = el("figcaption", "view-note");
      const pair = item.answers[i];
      if (!pair) caption.append(`${example.answer} (the fine-tune was not asked)`);
      if (pair) caption.append(pair.before === pair.after ? `${pair.before} (both)` : pair.before);
      if (pair && pair.before !== pair.after) caption.append(el("b", "", ` → ${pair.after}`));
      figure.append(thumb(data, original, example), caption);
      return figure;
    });
    part.movedBefore.replaceChildren(...figures);
    part.movedAfter.replaceChildren(
      ...item.after.map((example) => {
        const figure = el("figure", "concepts-example");
        figure.append(thumb(data, { ...original, top: example.activation }, example), el("figcaption", "view-note", example.answer));
        return figure;
      }),
    );
  }
}
