// The steer view's data: what is derived from a finished pair, and the payload's checks.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fullScale, SteerData } from "../../interp/web/static/steer/data.js";
import { steer } from "./payloads.mjs";

test("the mean and the largest KL, the end of the answer, and where each word matters", () => {
  const data = new SteerData(steer());
  assert.ok(Math.abs(data.mean - 1) < 1e-9);
  assert.deepEqual([data.most, data.end, data.peaks, data.moved, data.changed], [1, 2, [1], [0], true]);
});

test("an answer that was cut has no end, and equal answers are not a change", () => {
  const data = new SteerData(steer({ plain: { text: "a dog", finished: false }, steered: { text: "a dog", finished: false } }));
  assert.deepEqual([data.end, data.changed], [-1, false]);
});

test("a pair with another sweep is the same pair", () => {
  const sweep = { state: "done", points: [] };
  assert.equal(new SteerData(steer({ sweep })).key, new SteerData(steer()).key);
  assert.notEqual(new SteerData(steer({ kl: [1, 2, 3] })).key, new SteerData(steer()).key);
});

test("the data is a copy, for gradio writes the next state into the object it handed over", () => {
  const given = steer();
  const data = new SteerData(given);
  given.kl[0] = 99;
  assert.equal(data.pair.kl[0], 0.1);
});

test("rounding noise does not fill a bar", () => {
  assert.equal(fullScale([0.0001, 0.002]), 0.1);
  assert.equal(fullScale([0.5, 2.5]), 2.5);
  assert.equal(fullScale([]), 0.1);
});

test("damaged payloads are named", () => {
  for (const [fields, message] of [
    [{ tokens: [], kl: [], words: [] }, /a finished answer has no tokens/],
    [{ kl: [0.1] }, /KL has 1 values for 3 tokens/],
    [{ kl: null }, /KL is not a list/],
    [{ diff: "x" }, /diff is not a list/],
    [{ words: [{ word: "dog", plain: [0, 0, 0], steered: [0] }] }, /“dog” steered has 1 values/],
    [{ sweep: { state: "done", points: null } }, /the sweep is not a list/],
    [{ schema: "other" }, /it was given other/],
  ])
    assert.throws(() => new SteerData(steer(fields)), message);
});

test("an answer that grows needs none of the figures", () => {
  const data = new SteerData(steer({ state: "running", tokens: null, kl: null, words: null, diff: null, edits: null }));
  assert.equal(data.done, false);
});
