// The attribution view's data: signed scores, what raised the word, one feature over all words; and signed numbers as text.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AttributionData, specKey } from "../../interp/web/static/attribution/data.js";
import { chance, correlation, lead, signed } from "../../interp/web/static/attribution/text.js";
import { attributed, attributedWord, attribution, featureWords } from "./payloads.mjs";

// Rows 1 to 6 are patches, 7 and 8 words; row 0 is left out of rankings.
const dog = attributed(17, { 0: 40, 1: 0.5, 2: 2, 7: -3 }, { label: "dog", score: -0.5 });
const cat = attributed(48, { 2: -1.5, 5: 0.25 }, { label: "cat" });
const fur = attributed(5, { 3: 0.75 });
const made = (fields, list = [dog, cat, fur]) => new AttributionData(attribution([attributedWord(list, { 2: 0.125 })], fields));
const numbers = (lines) => lines.map(({ feature }) => feature);

test("a line knows its signed scores and where on the picture they are largest, left-out places aside", () => {
  const [line, lowering] = made().first.lines;
  assert.deepEqual([...line.at], [40, 0.5, 2, 0, 0, 0, 0, -3, 0]);
  assert.deepEqual([line.peak, line.peakRow, line.low, line.high, line.textPeak], [2, 2, 0, 2, 3]);
  assert.deepEqual([lowering.peak, lowering.peakRow, lowering.low, lowering.high], [1.5, 2, -1.5, 0.25]);
});

test("what the SAE misses is a line of its own, and the features not listed are a sum", () => {
  const { error, rest } = made().first;
  assert.deepEqual([error.feature, error.score, error.exact, error.at[2]], [null, 0.5, 0.4, 0.125]);
  assert.equal(rest.count, 3);
  assert.equal(rest.score, 5 - (-0.5 - 1.25 + 0.75));
});

test("what raised the word is sorted by its estimate, without what lowered it", () => {
  const data = made({}, [cat, fur, attributed(9, { 1: 3 })]);
  assert.deepEqual(numbers(data.raising(data.first)), [9, 5]);
  assert.deepEqual(numbers(data.raising(data.first, 1)), [9]);
});

test("lines with a score at a place, largest by size first", () => {
  const data = made();
  assert.deepEqual(numbers(data.at([...data.first.lines, data.first.error], 2)), [17, 48, null]);
  assert.deepEqual(data.at(data.first.lines, 8), []);
});

test("the patches that a feature was read from, for steering", () => {
  const data = made();
  assert.deepEqual(data.patches(data.first.lines[1]), [
    [0, 1],
    [1, 1],
  ]);
});

test("a word that comes later is kept under what was asked", () => {
  const data = made();
  const spec = { token: 0, baseline: "cow", top: 10 };
  const word = data.add(attributedWord([fur], {}, { spec }));
  assert.equal(data.words.get(specKey({ top: 10, baseline: "cow", token: 0 })), word);
  assert.equal(data.words.size, 2);
  assert.notEqual(data.first, word);
});

test("one feature over all words has a score and a map for each", () => {
  const data = made();
  const tracked = data.tracked(featureWords(17, [-2.5]));
  assert.deepEqual([tracked.scores, tracked.top, tracked.lines[0].at[2], tracked.lines[0].exact], [[-2.5], 2.5, -2.5, null]);
  assert.throws(() => data.tracked(featureWords(17, [1, 2])), /2 scores for 1 token/);
});

test("damage is named", () => {
  assert.throws(() => made({}, [attributed(3, { 9: 1 })]), /feature 3 has a score at row 9 of 9/);
  assert.throws(() => new AttributionData(attribution([])), /explains no word/);
  const beyond = attributedWord([dog], {}, { spec: { token: 7, baseline: "", top: 20 } });
  assert.throws(() => new AttributionData(attribution([beyond])), /explains token 7 of 1/);
});

test("what is handed over belongs to a picture and an answer", () => {
  const data = made();
  const { image, prompt, answer } = data.payload;
  assert.ok(data.isOf({}));
  assert.ok(data.isOf({ of: { image: image.src, prompt, answer } }));
  assert.ok(!data.isOf({ of: { image: image.src, prompt, answer: "cat" } }));
});

test("numbers have a sign and three digits", () => {
  assert.deepEqual([0, 0.0001, 0.012, -0.5, 1.25, -12.34, 99.96, null].map(signed), [
    "0",
    "0",
    "+0.012",
    "−0.50",
    "+1.25",
    "−12.3",
    "+100.0",
    "–",
  ]);
  assert.equal(lead(2.5), "leads by 2.50");
  assert.equal(lead(0), "leads by 0");
  assert.equal(lead(-2.5), "is behind by 2.50");
  assert.deepEqual([0.98, 0.9996, 1, -0.5, null].map(correlation), ["0.98", "1.000", "1.00", "−0.50", "–"]);
  assert.deepEqual([1, 0.5, 0.00123, 0.0000471, 1e-9, 0].map(chance), ["> 99.9 %", "50.0 %", "0.1 %", "0.0047 %", "< 0.0001 %", "0 %"]);
});
