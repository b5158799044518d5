// Information flow: what becomes of the word when, in a window of layers, one kind of token cannot read another. Computed when asked for.
/** @import { AttentionData } from "./data.js" */
import { radios } from "../shared/elements.js";
import { plural } from "../shared/text.js";
import { drawKey, drawLines, layerUnder } from "./chart.js";
import * as say from "./text.js";

// One colour for each way into a kind of token; what starts at the object or the rest of the picture has the colour of the picture, dashed.
const COLOURS = { "image→prompt": "#0b84d8", "image→answer so far": "#1a9e6b", "image→last": "#e07b00", "prompt→answer so far": "#c2408f" };
const OTHERS = ["#8a63d2", "#b3541e", "#8b8f98"];
const DASHES = { object: "7 4", rest: "2 4" };
/** @type {[string, string][]} */
const MEASURES = [
  ["change", "Probability"],
  ["log_odds", "Log-odds"],
];

const asImage = (name) => name.replace(/^(object|rest)→/, "image→");

export class Flow {
  // ask(window) -> {answer} | {error} | null, or null where there is no server; host: {ask, token()}
  constructor(part, host, serial, signal) {
    this.part = part;
    this.host = host;
    this.measure = "change";
    this.now = null;
    this.found = null;
    const on = (node, type, fn) => node.addEventListener(type, fn, { signal });
    radios(part.flowMeasure, `attention-flow-${serial}`, MEASURES, this.measure, (key) => {
      this.measure = key;
      this.draw();
    });
    on(part.flowWindow, "input", () => this.slide());
    on(part.flowGo, "click", () => this.go());
    on(part.flowCurve, "pointermove", (event) => this.mark(layerUnder(part.flowCurve, event, this.found?.centres.length ?? 1)));
    on(part.flowCurve, "pointerleave", () => this.mark(null));
  }

  /** @param {AttentionData} data */
  begin(data, asks) {
    const { part } = this;
    this.data = data;
    this.asks = asks;
    part.flowBox.hidden = !asks;
    Object.assign(part.flowWindow, { max: data.layers[data.L - 1] + 1, value: data.payload.window });
    this.show(null);
    this.slide();
  }

  slide() {
    this.part.flowWindowOut.textContent = plural(+this.part.flowWindow.value, "layer");
  }

  // The curves of another word are not those of this one.
  show(found, word = "") {
    this.found = found;
    this.word = word;
    this.part.flowResult.hidden = !found;
    this.part.flowNote.textContent = "";
    if (found) this.draw();
  }

  async go() {
    const { part, host } = this;
    part.flowGo.disabled = true;
    this.say("Running the model with one kind of reading blocked at a time …");
    const out = await host.ask(+part.flowWindow.value);
    part.flowGo.disabled = false;
    if (!out) return;
    if (out.error) return this.say(out.error, true);
    this.show(out.answer, host.word());
  }

  say(text, bad = false) {
    this.part.flowNote.textContent = text;
    this.part.flowNote.classList.toggle("view-bad", bad);
  }

  mark(now) {
    if (this.now === now || !this.found) return;
    this.now = now;
    this.draw();
  }

  draw() {
    const { part, found, measure, now, word } = this;
    if (!found) return;
    const values = found.blocks.map((block) => block[measure]);
    const low = Math.min(0, ...values.flat()),
      high = Math.max(0, ...values.flat());
    const unit = measure === "change" ? " %" : "";
    const digits = measure === "change" ? 0 : 1;
    const others = found.blocks.filter(({ name }) => !COLOURS[asImage(name)]);
    const series = found.blocks.map((block, i) => ({
      name: block.name,
      values: values[i],
      colour: COLOURS[asImage(block.name)] ?? OTHERS[others.indexOf(block) % OTHERS.length],
      dash: DASHES[block.name.split("→")[0]],
    }));
    const ticks = [...new Set([low, 0, high])].map((v) => [v, `${say.signed(v, digits)}${unit}`]);
    const room = (high - low) * 0.04 || 1;
    const labels = found.centres.map(String);
    drawLines(part.flowCurve, {
      series,
      labels,
      low: low - room,
      high: high + room,
      ticks,
      now,
      label: `Change of ${measure === "change" ? "the probability" : "the log-odds"} of ${word} over the layers, for ${plural(series.length, "kind")} of reading`,
    });
    drawKey(
      part.flowKey,
      series,
      now === null ? null : values.map((row) => `${say.signed(row[now], measure === "change" ? 1 : 2)}${unit}`),
    );
    part.flowSaid.textContent = `“${word.trim()}”: ${measure === "change" ? "change of its probability" : "change of its log-odds"} when ${
      found.window === 1 ? "one layer" : `${found.window} layers`
    } around this one cannot read that way. ${plural(found.forwards, "batch", "batches")} of forward passes.`;
  }
}
