// The feature view's data: activations at places, orders, filters.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FeatureData } from "../../interp/web/static/features/data.js";
import { Asker } from "../../interp/web/static/shared/asker.js";
import { feature, features, scene } from "./payloads.mjs";

const dog = feature(17, { 1: 0.5, 2: 4, 7: 9, 0: 40 }, { label: "dog", score: 2, density: 0.2 });
const pizza = feature(48, { 2: 1, 5: 3 }, { label: "Pizza", score: 3, density: null });
const nameless = feature(5, { 8: 1 }, { score: 1, density: 0.1 });
const made = (fields) => new FeatureData(features([pizza, dog, nameless], fields));
const numbers = (entries) => entries.map(({ feature: number }) => number);

test("a feature knows its highest patch, and its text apart from it", () => {
  const data = made();
  const known = data.known.get(17);
  assert.deepEqual([known.peak, known.peakRow], [4, 2]);
  // Row 0 is left out of rankings: a sink would drown the rest.
  assert.deepEqual([known.textPeak, known.texts], [9, 2]);
  assert.deepEqual([...known.at], [40, 0.5, 4, 0, 0, 0, 0, 9, 0]);
  assert.deepEqual([data.known.get(5).peak, data.known.get(5).peakRow], [0, null]);
});

test("a row beyond the last one is named as damage", () => {
  assert.throws(() => new FeatureData(features([feature(3, { 9: 1 })])), /feature 3 is active at row 9 of 9/);
});

test("the listed features are ranked over other rows", () => {
  const data = made();
  const local = data.local([1, 2]);
  assert.deepEqual(numbers(local), [17, 48]);
  assert.deepEqual([local[0].mean, local[0].max, local[0].frequency, local[0].score], [2.25, 4, 1, 2.25]);
  assert.deepEqual(numbers(made({ rank_by: "max" }).local([2, 5])), [17, 48]);
  assert.deepEqual(numbers(made({ rank_by: "frequency" }).local([2, 5])), [48, 17]);
  assert.deepEqual(data.local([3]), []);
});

test("what is not known stands last in either direction", () => {
  const data = made();
  assert.deepEqual(numbers(data.sorted(data.home, null)), [48, 17, 5]);
  assert.deepEqual(numbers(data.sorted(data.home, { key: "density", down: true })), [17, 5, 48]);
  assert.deepEqual(numbers(data.sorted(data.home, { key: "density", down: false })), [5, 17, 48]);
  assert.deepEqual(numbers(data.sorted(data.home, { key: "label", down: false })), [17, 48, 5]);
  assert.deepEqual(numbers(data.sorted(data.home, { key: "label", down: true })), [48, 17, 5]);
});

test("a filter matches labels and numbers", () => {
  const data = made();
  const matching = (text) => numbers(data.home.filter((entry) => data.matches(entry, text)));
  assert.deepEqual(matching("piz"), [48]);
  assert.deepEqual(matching("#17"), [17]);
  assert.deepEqual(matching("  "), [48, 17, 5]);
  assert.deepEqual(matching("zebra"), []);
});

test("features active at a row, strongest first", () => {
  const data = made();
  assert.deepEqual(numbers(data.activeAt(data.home, 2)), [17, 48]);
  assert.deepEqual(numbers(data.activeAt(data.home, 3)), []);
});

test("a box of patches is its rows of T, corners included", () => {
  assert.deepEqual(made().boxRows(0, [0, 1, 1, 2]), [2, 3, 5, 6]);
});

test("a place of another picture or text is not one of this view", () => {
  const data = made();
  const { image, prompt, answer } = scene();
  assert.equal(data.isOf({}), true);
  assert.equal(data.isOf({ of: { image: image.src, prompt, answer } }), true);
  assert.equal(data.isOf({ of: { image: image.src, prompt: "other", answer } }), false);
});

test("only the newest question of a kind is answered", async () => {
  const asker = new Asker(new AbortController().signal);
  const gates = [];
  const wait = () => new Promise((done) => gates.push(done));
  const first = asker.ask("list", wait, "silent");
  const second = asker.ask("list", wait, "silent");
  gates[0]("late");
  gates[1]("new");
  assert.equal(await first, null);
  assert.deepEqual(await second, { answer: "new" });
});

test("errors, silence and an end of the view", async () => {
  const end = new AbortController();
  const asker = new Asker(end.signal);
  assert.deepEqual(await asker.ask("a", async () => ({ error: "Type one word." }), "silent"), { error: "Type one word." });
  assert.deepEqual(await asker.ask("a", async () => null, "silent"), { error: "silent" });
  assert.deepEqual(await asker.ask("a", () => Promise.reject(new Error("gone")), "silent"), { error: "gone" });
  end.abort();
  assert.equal(await asker.ask("a", async () => 1, "silent"), null);
});
