// The payload of the steer view ("llava-microscope/steer-view/1"), checked and copied. No DOM.
import { requireSchema } from "../shared/payload.js";
import { plural } from "../shared/text.js";

const SCHEMA = "llava-microscope/steer-view/1";

// Bars are measured by the largest value shown, but never by less than this: rounding noise must not look like an effect.
const LEAST_SCALE = 0.1;

export function fullScale(values) {
  return Math.max(LEAST_SCALE, ...values);
}

function damaged(what) {
  throw new Error(`The data of this view is damaged: ${what}.`);
}

function list(name, values, length) {
  if (!Array.isArray(values)) damaged(`${name} is no list`);
  if (length !== undefined && values.length !== length) damaged(`${name} has ${values.length} values for ${plural(length, "token")}`);
}

export class SteerData {
  constructor(payload) {
    requireSchema(payload, SCHEMA);
    // A copy: while gradio streams, it writes the next state into the object that it handed over before.
    const { sweep, ...pair } = JSON.parse(JSON.stringify(payload));
    this.key = JSON.stringify(pair);
    this.pair = pair;
    this.sweep = sweep;
    this.state = pair.state;
    this.done = pair.state === "done";
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
