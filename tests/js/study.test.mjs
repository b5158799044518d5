// The pure functions of the study view.
import assert from "node:assert/strict";
import { test } from "node:test";
import { address, bars, counts, decode, scored } from "../../interp/web/static/study/data.js";
import { b64, picture } from "./payloads.mjs";

const STUDY = { name: "s", model: "m", sae: "a", layer: 3, features: 9, alive: 5, samples: 400, pool: "mean" };
const NONE = { edges: [], on_pictures: [], on_text: [] };

function feature(fields = {}) {
  return {
    feature: 7,
    label: "dog",
    source: "",
    explanation: "",
    category: "",
    scores: [],
    undefined: [],
    pictures: 3,
    tokens: 8,
    peak: 4,
    histogram: NONE,
    neighbours: [],
    promotes: [],
    suppresses: [],
    top: [],
    ...fields,
  };
}

const shown = (boxes, values) => ({
  picture: picture(96, 48),
  id: "a.png",
  score: 1,
  boxes: b64(Float32Array.from(boxes.flat())),
  values: b64(Float32Array.from(values)),
});

test("patches are drawn from the weakest to the strongest, on one scale for all pictures", () => {
  const boxes = [
    [0, 0, 48, 48],
    [48, 0, 96, 48],
  ];
  const decoded = decode({ study: STUDY, feature: feature({ top: [shown(boxes, [4, 2]), shown([], [])] }) }).feature;
  assert.deepEqual(decoded.top[0].patches, [
    { box: boxes[1], value: 2 },
    { box: boxes[0], value: 4 },
  ]);
  assert.deepEqual(decoded.top[1].patches, []);
  assert.equal(decoded.most, 4);
  assert.equal(decode({ study: STUDY, feature: feature() }).feature.most, 0);
});

test("damaged maps are refused", () => {
  const part = { study: STUDY, feature: feature({ top: [shown([[0, 0, 1]], [4])] }) };
  assert.throws(() => decode(part), /boxes has 12 bytes, not 16/);
});

test("text stands on pictures in the histogram, and empty bins have no bar", () => {
  const { bars: made, most, width } = bars({ edges: [1, 2, 4, 8], on_pictures: [4, 0, 2], on_text: [0, 1, 2] });
  assert.equal(most, 4);
  assert.equal(width, 1 / 8);
  assert.deepEqual(
    made.map(({ x, low, high, kind }) => [x, low, high, kind]),
    [
      [0, 0, 1, "pictures"],
      [1 / 8, 0, 0.25, "text"],
      [2 / 8, 0, 0.5, "pictures"],
      [2 / 8, 0.5, 1, "text"],
    ],
  );
  assert.match(made[1].said, /^2(\.0+)? to 4(\.0+)?: 1 text token$/);
  assert.deepEqual(bars(NONE), { bars: [], most: 0, width: 1 / 8 });
});

test("how often a feature is active", () => {
  assert.match(counts(feature(), STUDY), /^Active on 3 of 400 pictures \(0\.8 %\), on 8 image tokens; at most 4/);
  assert.match(counts(feature({ pictures: 100, tokens: 1 }), STUDY), /\(25 %\), on 1 image token;/);
  assert.equal(counts(feature({ pictures: 0 }), STUDY), "Active on none of the study's 400 pictures.");
});

test("scores stand beside their controls, undefined ones as a dash", () => {
  const score = {
    name: "IoU",
    value: 0.8,
    controls: [
      { name: "random masks", value: null },
      { name: "any", value: 0.125 },
    ],
  };
  assert.deepEqual(scored(score), { said: "IoU 0.80", beside: "random masks –, any 0.13" });
  assert.deepEqual(scored({ name: "CLIP score", value: null, controls: [] }), { said: "CLIP score –", beside: "" });
  assert.equal(scored({ name: "CLIP score", value: 27.25, controls: [] }).said, "CLIP score 27.3");
});

test("a feature's address names the study only where there are several", () => {
  assert.equal(address({ studies: ["a"], study: "a", feature: 7 }), "?feature=7");
  assert.equal(address({ studies: ["a", "b & c"], study: "b & c", feature: 7 }), "?feature=7&study=b%20%26%20c");
});
