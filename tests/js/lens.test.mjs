// The lens view's data: words, probabilities, searches, counts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { LensData } from "../../interp/web/static/lens/data.js";
import { b64, lens } from "./payloads.mjs";

// The stored byte of a probability.
const q = (p) => Math.round(((Math.log(p / (1 - p)) + 9) / 16) * 255);
const rows = (fill) => Array.from({ length: 9 }, fill);
const [DOG, CAT, BARE, COMMA, UPPER] = [0, 1, 2, 3, 4];

function made(fields) {
  const early = rows((_, row) => (row % 2 ? [COMMA, CAT] : [CAT, BARE]));
  const late = rows((_, row) => (row === 3 ? [COMMA, DOG] : row === 4 ? [DOG, UPPER] : [CAT, DOG]));
  const probs = [rows(() => [q(0.3), q(0.01)]), rows((_, row) => [q(row === 4 ? 0.8 : 0.5), q(0.1)])];
  return new LensData(lens([early, late], probs, fields));
}

const close = (a, b, by = 0.01) => assert.ok(Math.abs(a - b) <= by, `${a} is not ${b}`);

test("probabilities survive their byte, very small and very large ones too", () => {
  for (const p of [0.0002, 0.02, 0.5, 0.98, 0.999]) {
    const data = new LensData(lens([rows(() => [0, 1]), rows(() => [0, 1])], [rows(() => [q(p), 0]), rows(() => [0, 0])]));
    close(data.p(0, 0), p, 0.04 * Math.min(p, 1 - p) + 1e-4);
    assert.equal(data.p(0, 0, 1), 0);
  }
});

test("words, entropy and layer names of a place", () => {
  const data = made();
  assert.deepEqual(
    data.words(1, 4).map(({ id }) => data.vocab[id]),
    [" dog", "Dog "],
  );
  close(data.words(1, 4)[0].p, 0.8);
  close(data.entropy(0, 3), (45 / 255) * 5.1, 1e-6);
  assert.deepEqual([data.layerName(0), data.layerName(1)], ["embed", "0"]);
});

test("ids of four bytes read as those of two", () => {
  const two = made();
  const four = made({ ids: b64(Uint32Array.from(two.ids)), ids_bytes: 4 });
  assert.deepEqual([...four.ids], [...two.ids]);
});

test("a curve is not a number where the word is not stored", () => {
  const curve = made().curve(4, DOG);
  assert.ok(Number.isNaN(curve[0]));
  close(curve[1], 0.8);
});

test("a search sums all spellings, whatever their case and spaces", () => {
  const data = made();
  const found = data.search("  DOG ");
  assert.deepEqual(found.spellings.sort(), [" dog", "Dog ", "dog"]);
  close(found.values[9 + 4], 0.9);
  close(found.values[9 + 3], 0.1);
  assert.ok(Number.isNaN(found.values[1]));
  assert.equal(data.search("zebra"), null);
  assert.equal(data.search("  "), null);
});

test("a search answered by the server is decoded like the payload", () => {
  const data = made();
  const values = new Uint8Array(18);
  values[13] = q(0.5);
  close(data.found({ spellings: [" dog"], values: b64(values), range: [0, 1] }).values[13], 0.5);
  assert.throws(() => data.found({ spellings: [], values: "AAAA", range: [0, 1] }), /found word has 3 bytes, not 18/);
});

test("the most frequent top words of the patches come first", () => {
  assert.deepEqual(made().frequent(1, 0), [
    [CAT, 4],
    [DOG, 1],
    [COMMA, 1],
  ]);
});

test("a patch is silent when its top word is punctuation or too unlikely", () => {
  const data = made();
  assert.equal(data.silent(1, 3, 0), true);
  assert.equal(data.silent(1, 4, 0.7), false);
  assert.equal(data.silent(1, 5, 0.7), true);
});

test("the view opens on the most certain patch that says a word", () => {
  assert.equal(made().strongest(1, 0), 4);
});

test("similarities are steps of their own range, and coloured by their own scale", () => {
  const bytes = rows(() => [255, 51]);
  const fields = {
    method: "embedding",
    reads: "here",
    score: "cosine similarity",
    range: [-0.1, 0.4],
    entropy: "",
    first: "",
  };
  const scale = [
    [0, 0.2],
    [0, 0.4],
  ];
  const data = new LensData(lens([rows(() => [DOG, BARE]), rows(() => [CAT, DOG])], [bytes, bytes], { ...fields, scale }));
  close(data.p(0, 0), 0.4, 1e-6);
  close(data.p(0, 0, 1), 0, 1e-6);
  assert.deepEqual([data.share(0.1, 0), data.share(0.4, 0), data.share(-1, 0), data.share(0.1, 1)], [0.5, 1, 0, 0.25]);
  assert.deepEqual([data.figure(-0.123), data.figure(NaN)], ["−0.12", "not stored"]);
  assert.equal(data.threshold(0, 0), -Infinity);
  close(data.threshold(0.5, 0), 0.1, 1e-6);
  close(data.search("dog").values[0], 0.4, 1e-6); // the better of its two spellings, not their sum
  close(data.found({ spellings: [" dog"], values: b64(new Uint8Array(18).fill(255)), range: [-0.5, -0.2] }).values[3], -0.2, 1e-6);
});

test("the same run through another lens keeps its scene", () => {
  const data = made();
  const other = data.through({ ...data.payload, method: "token", reads: "here", layers: [0, 5] });
  assert.deepEqual([other.method, other.next, other.grids.length, other.vocab.length], ["token", false, 1, 5]);
  assert.deepEqual([other.layerAt(-1), other.layerAt(4)], [0, 1]);
});

test("damaged payloads are named", () => {
  assert.throws(() => made({ probs: "AAAA" }), /probs has 3 bytes, not 36/);
  assert.throws(() => made({ schema: "other" }), /it was given other/);
});
