// The payload as it was when it came, and every figure as text: probabilities, nats, values, shares.
// Knows the payload contract ("llava-microscope/steer-view/1"). Knows nothing of the page: no DOM, no colours, no events.
(function (Lens) {
  "use strict";
  const SCHEMA = "llava-microscope/steer-view/1";
  const SUPER = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  // Bars are measured by the largest value shown, but never by less than this: rounding noise must not look like an effect.
  const LEAST_SCALE = 0.1;

  function power(v) {
    const [digits, exponent] = v.toExponential(1).split("e");
    return `${digits === "1.0" ? "" : `${digits.replace(/\.0$/, "")}·`}10${Array.from(String(+exponent), (c) => SUPER[c]).join("")}`;
  }

  // A probability in per cent with two digits that mean something, however small: what an edit does is often a change from tiny to small.
  function chance(p) {
    if (p === 0) return "0 %";
    if (p >= 0.9995) return "> 99.9 %";
    const percent = p * 100;
    if (percent >= 0.1) return `${percent.toFixed(1)} %`;
    return `${percent >= 0.0001 ? +percent.toPrecision(2) : power(percent)} %`;
  }

  function nats(v) {
    if (v === 0) return "0";
    if (v < 0.0001) return "< 0.0001";
    return v < 0.01 ? v.toFixed(4) : v < 10 ? v.toFixed(3) : v.toFixed(1);
  }

  function share(v) {
    if (v === 0) return "0 %";
    if (v < 0.0001) return "< 0.01 %";
    return `${(v * 100).toFixed(v >= 0.1 ? 0 : v >= 0.01 ? 1 : 2)} %`;
  }

  // The value of an edit: an addition has a sign, a target has none unless it is negative.
  function value(unit, v) {
    const text = String(+Math.abs(v).toPrecision(4));
    return (v < 0 ? "−" : v > 0 && unit !== "target" ? "+" : "") + text;
  }

  function size(v) { return v === 0 ? "0" : v >= 100 ? v.toFixed(0) : String(+v.toPrecision(3)); }
  function plural(count, one) { return `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`; }
  function top(values) { return Math.max(LEAST_SCALE, ...values); }

  // What an edit pushes, in words.
  function name({ label, feature }) { return label || `feature ${feature}`; }

  function damaged(what) { throw new Error(`The data of this view is damaged: ${what}.`); }

  function list(name, values, length) {
    if (!Array.isArray(values)) damaged(`${name} is no list`);
    if (length !== undefined && values.length !== length) damaged(`${name} has ${values.length} values for ${plural(length, "token")}`);
  }

  class SteerData {
    constructor(payload) {
      Lens.known(payload, SCHEMA);
      // A copy: while gradio streams, it writes the next state into the object that it handed over before.
      const { sweep, ...pair } = JSON.parse(JSON.stringify(payload));
      this.key = JSON.stringify(pair);
      Object.assign(this, { pair, sweep, state: pair.state, done: pair.state === "done" });
      if (sweep) list("the sweep", sweep.points);
      if (this.done) this.read();
    }

    read() {
      const { diff, tokens, kl, words, edits, plain, steered } = this.pair;
      for (const [name, values] of Object.entries({ diff, tokens, words, edits })) list(name, values);
      if (!tokens.length) damaged("a finished answer has no token");
      list("KL", kl, tokens.length);
      for (const { word, plain: before, steered: after } of words) {
        list(`“${word}” without edits`, before, tokens.length);
        list(`“${word}” steered`, after, tokens.length);
      }
      this.changed = plain.text !== steered.text;
      this.mean = kl.reduce((sum, v) => sum + v, 0) / kl.length;
      this.most = kl.indexOf(Math.max(...kl));
      this.end = plain.finished ? tokens.length - 1 : -1;
      // For each word the token at which it was likeliest without edits, and the one at which the edits changed it most.
      const highest = (values) => values.indexOf(Math.max(...values));
      this.peaks = words.map((word) => highest(word.plain));
      this.moved = words.map((word) => highest(word.plain.map((p, i) => Math.abs(word.steered[i] - p))));
    }
  }

  Object.assign(Lens, { SteerData, steerText: { chance, nats, share, value, size, plural, name, power }, steerTop: top });
})((globalThis.LlavaLens = globalThis.LlavaLens || {}));
