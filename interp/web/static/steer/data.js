// The steer payload, checked and copied. No DOM.
/** @import { SteerPayload } from "../payloads.js" */
import { requireSchema } from "../shared/payload.js";
import { plural } from "../shared/text.js";

const SCHEMA = "llava-microscope/steer-view/1";

// Full scale is the largest value shown, but never less than this: rounding noise must not look like an effect.
const LEAST_SCALE = 0.1;

/** @param {number[]} values */
export function fullScale(values) {
  return Math.max(LEAST_SCALE, ...values);
}

/**
 * @param {string} what
 * @returns {never}
 */
function damaged(what) {
  throw new Error(`The data of this view is damaged: ${what}.`);
}

/**
 * @param {string} name
 * @param {unknown} values
 * @param {number} [length]
 */
function list(name, values, length) {
  if (!Array.isArray(values)) return damaged(`${name} is not a list`);
  if (length !== undefined && values.length !== length) damaged(`${name} has ${values.length} values for ${plural(length, "token")}`);
}

/** @typedef {{ [K in keyof SteerPayload]: NonNullable<SteerPayload[K]> }} Finished a payload whose state is "done" */

export class SteerData {
  /** @param {SteerPayload} payload */
  constructor(payload) {
    requireSchema(payload, SCHEMA);
    // A copy: while it streams, gradio writes the next state into the object of the previous one.
    const { sweep, ...pair } = /** @type {SteerPayload} */ (JSON.parse(JSON.stringify(payload)));
    this.key = JSON.stringify(pair);
    this.pair = pair;
    this.sweep = sweep;
    this.state = pair.state;
    this.done = pair.state === "done";
    if (sweep) list("the sweep", sweep.points);
    this.changed = false;
    this.mean = 0;
    /** Token with the largest KL. */
    this.most = 0;
    /** Token that ends the answer, -1 if it was cut. */
    this.end = -1;
    /** @type {number[]} for each word, the token at which it was likeliest without edits */
    this.peaks = [];
    /** @type {number[]} for each word, the token at which the edits changed it most */
    this.moved = [];
    if (this.done) this.read();
  }

  read() {
    const { diff, tokens, kl, words, edits, plain, steered } = /** @type {Omit<Finished, "sweep">} */ (this.pair);
    for (const [name, values] of Object.entries({ diff, tokens, words, edits })) list(name, values);
    if (!tokens.length) damaged("a finished answer has no tokens");
    list("KL", kl, tokens.length);
    for (const { word, plain: before, steered: after } of words) {
      list(`“${word}” without edits`, before, tokens.length);
      list(`“${word}” steered`, after, tokens.length);
    }
    this.changed = plain.text !== steered.text;
    this.mean = kl.reduce((sum, v) => sum + v, 0) / kl.length;
    this.most = kl.indexOf(Math.max(...kl));
    this.end = plain.finished ? tokens.length - 1 : -1;
    const highest = (/** @type {number[]} */ values) => values.indexOf(Math.max(...values));
    this.peaks = words.map((word) => highest(word.plain));
    this.moved = words.map((word) => highest(word.plain.map((p, i) => Math.abs(word.steered[i] - p))));
  }
}
