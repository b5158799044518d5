// The sweep: the same edit at several values, as a strip of cards and a small curve of the mean KL over the value.
// Calls select(index, value) when a value is chosen; the host decides whether to mark it.
/** @import { SweepPayload } from "../payloads.js" */

import { markDiff } from "../shared/diff.js";
import { el, svg } from "../shared/elements.js";
import { nats } from "../shared/figures.js";
import { share } from "../shared/text.js";
import { grow } from "./answers.js";
import { fullScale } from "./data.js";
import * as say from "./text.js";

// What a value means.
function tags({ unit, others, current }, value) {
  const zero = unit === "target" ? "switched off" : others ? "without this edit" : "no edit";
  return [...(value === 0 ? [zero] : []), ...(value === current ? ["current"] : [])];
}

// The steered side with its additions marked and what it lacks struck through.
function answer(node, { diff, answer: text, finished }) {
  if (!diff) return grow(node, text);
  const pieces = diff.flatMap(({ op, plain, steered }) =>
    op === "equal" ? [el("span", "view-same", steered)] : op === "delete" ? markDiff("del", plain) : markDiff("ins", steered),
  );
  node.replaceChildren(...(text ? pieces : [el("span", "view-dim", "(empty answer)")]));
  if (finished === false) node.append(el("span", "view-dim", " … cut"));
}

export class Sweep {
  constructor(part, select, signal) {
    this.part = part;
    this.key = null;
    this.made = null;
    this.cards = [];
    part.points.addEventListener(
      "click",
      (event) => {
        const card = event.target.closest("li");
        if (!card || (!event.target.closest("button") && String(getSelection()))) return; // selecting text to copy it is not a choice
        const index = +card.dataset.index;
        select(index, this.sweep.points[index].value);
      },
      { signal },
    );
  }

  /** @param {SweepPayload | null} sweep */
  show(sweep) {
    const { part } = this;
    const key = JSON.stringify(sweep);
    if (key === this.key) return;
    this.key = key;
    this.sweep = sweep;
    part.sweepBox.hidden = !sweep;
    if (!sweep) {
      this.made = null;
      return;
    }
    this.build();
    const chip = { running: "answering …", stopped: "stopped", done: "" }[sweep.state];
    if (part.sweepChips.textContent !== chip)
      part.sweepChips.replaceChildren(...(chip ? [el("span", `view-chip${sweep.state === "stopped" ? " steer-warn" : ""}`, chip)] : []));
    const known = sweep.points.filter(({ kl }) => kl !== null);
    this.top = fullScale(known.map(({ kl }) => kl));
    for (const card of this.cards) this.fill(card, sweep.points[card.index]);
    this.curve(known);
  }

  // The cards in the order of their values. They stay while the values do, so focus and scroll survive every update.
  build() {
    const { part, sweep } = this;
    const { points, unit, label, feature, layer, sae, others } = sweep;
    const made = JSON.stringify([points.map(({ value }) => value), unit, label, feature, layer, sae, others]);
    if (made === this.made) return;
    this.made = made;
    const what = el("bdi", "", `${say.name(sweep)}${feature === null || !label ? "" : `, feature ${feature}`}`);
    const beside = others ? ` ${others === 1 ? "One other edit stays as it is" : `${others} other edits stay as they are`}.` : "";
    part.sweepSub.replaceChildren(
      `The ${unit} of `,
      what,
      `, layer ${layer}.${beside} Click a value to use it. Differences from the answer without edits are marked; KL is the mean over its tokens.`,
    );
    this.cards = points.map((point, index) => this.card(point, index)).sort((a, b) => points[a.index].value - points[b.index].value);
    part.points.replaceChildren(...this.cards.map(({ node }) => node));
    const shown = this.cards.find(({ index }) => points[index].value === (sweep.current ?? 0));
    if (shown)
      part.points.scrollLeft = shown.node.offsetLeft - part.points.offsetLeft - (part.points.clientWidth - shown.node.offsetWidth) / 2;
  }

  card(point, index) {
    const node = el("li"),
      over = el("div", "steer-over"),
      pick = el("button", "steer-pick", say.value(this.sweep.unit, point.value));
    const said = el("span"),
      text = el("p", "steer-text"),
      bar = el("span", "view-bar-back"),
      kl = el("span"),
      size = el("span");
    const figures = el("div", "steer-figures");
    node.dataset.index = index;
    pick.type = "button";
    text.dir = "auto";
    bar.append(el("i"));
    over.append(pick, said);
    figures.append(kl, bar, size);
    node.append(over, text, figures);
    return { node, index, pick, said, text, bar, kl, size, key: null, held: false };
  }

  fill(card, point) {
    const { sweep, top } = this;
    const key = JSON.stringify([point, sweep.state, sweep.current, top]);
    if (card.key === key) return;
    card.key = key;
    const named = tags(sweep, point.value);
    const said = named.join(", ");
    if (card.said.textContent !== said) card.said.replaceChildren(...named.map((text) => el("span", "view-chip", text)));
    card.node.classList.toggle("steer-current", point.value === sweep.current);
    card.pick.setAttribute("aria-label", `Set the ${sweep.unit} to ${say.value(sweep.unit, point.value)}${said ? ` (${said})` : ""}`);
    if (point.value === sweep.current) card.pick.setAttribute("aria-current", "true");
    else card.pick.removeAttribute("aria-current");
    this.hold(card);
    answer(card.text, point);
    card.kl.textContent = point.kl !== null ? `KL ${nats(point.kl)}` : sweep.state === "running" ? "KL …" : "";
    card.bar.firstChild.style.width = `${(100 * (point.kl ?? 0)) / top}%`;
    card.size.textContent = point.relative === null ? "" : `|Δh| ${share(point.relative)} of |h|`;
  }

  // While an answer grows, its card does not shrink.
  hold(card) {
    const growing = this.sweep.state === "running";
    if (growing !== card.held) card.text.style.minHeight = growing ? `${card.text.offsetHeight}px` : "";
    card.held = growing;
  }

  curve(known) {
    const {
      part: { curve },
      sweep: { unit, current, points },
      top,
    } = this;
    const W = 340,
      H = 96,
      left = 44,
      right = 14,
      above = 10,
      below = 18;
    const values = points.map(({ value }) => value);
    const low = Math.min(...values, 0),
      high = Math.max(...values, 0);
    curve.toggleAttribute("hidden", high === low);
    if (high === low) return;
    const x = (v) => left + ((v - low) / (high - low)) * (W - left - right);
    const y = (v) => above + (1 - v / top) * (H - above - below);
    const sorted = known.slice().sort((a, b) => a.value - b.value);
    const spot = current !== null && current >= low && current <= high ? [current] : [];
    const drawn = [
      svg("line", { x1: left, x2: W - right, y1: y(0), y2: y(0), class: "view-axis" }),
      svg("line", { x1: left, x2: W - right, y1: y(top), y2: y(top), class: "view-axis view-faint" }),
      svg("line", { x1: x(0), x2: x(0), y1: above, y2: y(0), class: "view-axis view-faint" }),
      svg("text", { x: left - 6, y: y(top) + 4, "text-anchor": "end" }, nats(top)),
      svg("text", { x: left - 6, y: y(0) + 4, "text-anchor": "end" }, "KL 0"),
      ...spot.map((v) => svg("line", { x1: x(v), x2: x(v), y1: above, y2: y(0), class: "view-now" })),
    ];
    const named = [...spot];
    for (const v of [0, low, high]) if (named.every((other) => Math.abs(x(v) - x(other)) > 34)) named.push(v);
    drawn.push(
      ...named.map((v) =>
        svg("text", { x: x(v), y: H - 4, "text-anchor": "middle", class: v === current ? "view-now-text" : "" }, say.value(unit, v)),
      ),
    );
    if (sorted.length)
      drawn.push(
        svg("path", { d: `M${sorted.map((p) => `${x(p.value).toFixed(1)},${y(p.kl).toFixed(1)}`).join("L")}`, class: "view-line view-a" }),
      );
    drawn.push(
      ...sorted.map((p) => svg("circle", { cx: x(p.value), cy: y(p.kl), r: p.value === current ? 4 : 2.5, class: "view-dot view-a" })),
    );
    curve.setAttribute("viewBox", `0 0 ${W} ${H}`);
    curve.setAttribute(
      "aria-label",
      `Mean KL over the ${unit}: ${sorted.map((p) => `${nats(p.kl)} at ${say.value(unit, p.value)}`).join(", ")}`,
    );
    curve.replaceChildren(...drawn);
  }
}
