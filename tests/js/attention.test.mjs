// Maps that the view makes itself from attention rows, who reads a patch, and what it says of a score.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AttentionData, mapKey } from "../../interp/web/static/attention/data.js";
import { heads, signed, value, verdict } from "../../interp/web/static/attention/text.js";
import { attention, b64 } from "./payloads.mjs";

const spec = (fields = {}) => ({ method: "attention", token: 0, layer: null, head: null, over: "mean", sinks: true, ...fields });
const near = (found, expected) => {
  assert.equal(found.length, expected.length);
  expected.forEach((v, i) => {
    assert.ok(Math.abs(found[i] - v) < 1e-6, `${i}: ${found[i]} is not ${v}`);
  });
};

test("one head is its row, a layer the mean of its heads, all the mean of everything", () => {
  const data = new AttentionData(attention());
  near(data.map(spec({ layer: 4, head: 1 })).values, [0, 0, 1, 0, 0, 0]);
  near(data.map(spec({ layer: 4 })).values, [0.5, 0, 0.5, 0, 0, 0]);
  near(data.map(spec()).values, [0.25, 0.5, 0.25, 0, 0, 0]);
  near(data.map(spec({ over: "max" })).values, [1, 1, 1, 0, 0, 0]);
  near(data.map(spec({ token: 1, layer: 2, head: 0 })).values, [0, 0.5, 0, 0, 0, 0]);
});

test("sinks are left out of a map only when asked for", () => {
  const data = new AttentionData(attention({ sinks: { tower: [3], decoder: [0, 2] } }));
  near(data.map(spec({ sinks: false })).values, [0.25, 0, 0, 0, 0, 0]);
  near(data.map(spec()).values, [0.25, 0.5, 0.25, 0, 0, 0]);
});

test("weighted by norms, a head counts by what it moves", () => {
  const data = new AttentionData(attention());
  near(data.map(spec({ method: "value_weighted", layer: 4, head: 1 })).values, [0, 0, 3, 0, 0, 0]);
});

test("what the rows do not hold is not made up", () => {
  const means = attention({ row_heads: 1, norms: "", norm_scale: "", ...rows(1, [0.5, 0.25]) });
  const data = new AttentionData(means);
  assert.equal(data.map(spec({ layer: 2, head: 0 })), null);
  assert.equal(data.map(spec({ over: "max" })), null);
  assert.equal(data.map(spec({ method: "value_weighted" })), null);
  near(data.map(spec({ layer: 2 })).values, [0.5, 0, 0, 0, 0, 0]);
  assert.equal(data.map(spec({ method: "relevancy" })), null);
});

function rows(headsKept, tops) {
  const bytes = tops.flatMap(() => [0, 1].flatMap(() => Array.from({ length: headsKept }, () => [255, 0, 0, 0, 0, 0]).flat()));
  return {
    rows: b64(Uint8Array.from(bytes)),
    row_scale: b64(Float32Array.from(tops.flatMap((top) => Array.from({ length: 2 * headsKept }, () => top)))),
  };
}

test("a map of the server is kept under its name, with its score", () => {
  const map = { values: b64(Float32Array.from([1, 2, 3, 4, 5, 6])), note: "careful" };
  const score = { insertion: 0.5, deletion: 0.1, random_insertion: 0.2, random_deletion: 0.3 };
  const data = new AttentionData(attention({ maps: [{ spec: spec({ method: "relevancy" }), map, score }] }));
  assert.deepEqual([...data.map(spec({ method: "relevancy" })).values], [1, 2, 3, 4, 5, 6]);
  assert.equal(data.scores.get(mapKey(spec({ method: "relevancy" }))).insertion, 0.5);
  assert.equal(data.map(spec({ method: "relevancy", token: 1 })), null);
  assert.throws(() => data.learn(spec(), { values: "AAAA", note: "" }), /a map has 3 bytes, not 24/);
});

test("who reads a patch, over all heads, over a layer, by one head", () => {
  const data = new AttentionData(attention());
  near(data.readers(3), [0.25, 0]);
  near(data.readers(3, 1), [0.5, 0]);
  near(data.readers(3, 1, 1), [1, 0]);
  near(data.readers(9), [0, 0]); // no image token
});

test("shares of a head and of a layer", () => {
  const data = new AttentionData(attention());
  assert.ok(Math.abs(data.share(0, 1, 1, 0) - 1) < 0.01);
  near(data.curve(0, 0), [0.5, 1]);
});

test("damaged payloads are named", () => {
  assert.throws(() => new AttentionData(attention({ rows: "AAAA" })), /rows has 3 bytes/);
  assert.throws(() => new AttentionData(attention({ start: 10 })), /the answer has no tokens/);
  assert.throws(() => new AttentionData({ schema: "llava-microscope/lens-view/1" }), /This view reads/);
});

test("what is said of heads, numbers and scores", () => {
  assert.equal(heads(spec({ layer: 3, head: 2 })), "layer 3, head 2");
  assert.equal(heads(spec({ layer: 3, over: "max" })), "largest over the heads of layer 3");
  assert.equal(heads(spec()), "mean over all layers and heads");
  const score = (insertion, deletion) => ({ insertion, deletion, random_insertion: 0.4, random_deletion: 0.3 });
  assert.equal(verdict(score(0.5, 0.2)), "Better than a random map by both.");
  assert.equal(verdict(score(0.5, 0.4)), "Better than a random map by insertion only.");
  assert.match(verdict(score(0.4, 0.3)), /^Not better than a random map/);
  assert.deepEqual([signed(-1.234), signed(0.5, 1), signed(-0.001)], ["−1.23", "+0.5", "0.00"]);
  assert.deepEqual([value(0), value(0.00042), value(0.5), value(12.34), value(250)], ["0", "4.2e-4", "0.500", "12.3", "250"]);
});
