// What all payloads share: arrays, patches, runs of tokens, the names of places.
import assert from "node:assert/strict";
import { test } from "node:test";
import { PatchCanvas } from "../../interp/web/static/shared/canvas.js";
import { decodeArray, decodePatches, placeName, requireSchema, tokenRuns } from "../../interp/web/static/shared/payload.js";
import { b64, grid, picture, scene } from "./payloads.mjs";

test("arrays come back as they were sent, and a wrong length is named", () => {
  assert.deepEqual(decodeArray(Float32Array, b64(Float32Array.from([0.5, -2])), 2, "values"), Float32Array.from([0.5, -2]));
  assert.throws(() => decodeArray(Uint16Array, "AAAA", 2, "ids"), /damaged: ids has 3 bytes, not 4/);
});

test("a payload of another schema is refused by name", () => {
  requireSchema({ schema: "a/1" }, "a/1");
  assert.throws(() => requireSchema({ schema: "a/2" }, "a/1"), /reads a\/1; it was given a\/2/);
  assert.throws(() => requireSchema(null, "a/1"), /given something else/);
});

test("every patch knows its place, and the finest grid is the one to begin with", () => {
  const { grids, place, finest } = decodePatches(scene({ grids: [grid(1, 2, 1), grid(2, 3, 3)] }));
  assert.equal(finest, 1);
  assert.deepEqual(place.get(2), { grid: 0, index: 1 });
  assert.deepEqual(place.get(8), { grid: 1, index: 5 });
  assert.deepEqual([...grids[1].boxes.subarray(20, 24)], [32, 16, 48, 32]);
});

test("a picture without any grid has one of no patches", () => {
  const { grids, finest } = decodePatches(scene({ grids: [] }));
  assert.equal(grids.length, 1);
  assert.equal(grids[finest].rows, 0);
});

const decoded = (fields) => {
  const made = scene(fields);
  return { payload: made, ...decodePatches(made), kinds: made.tokens.kind, T: made.tokens.kind.length - 1 };
};

test("patches in a row are one run, separators between them belong to it", () => {
  const data = decoded({ tokens: { text: [], kind: "xiisiippa" }, grids: [grid(1, 2, 1), grid(1, 2, 4)] });
  assert.deepEqual(tokenRuns(data), [{ row: 0 }, { from: 1, to: 5, count: 4 }, { row: 6 }, { row: 7 }]);
});

test("tokens without a place stand for themselves and are named by what they read", () => {
  const regions = [{ name: "upper half", box: [0, 0, 48, 16], positions: b64(Uint16Array.from([1, 2])) }];
  const data = decoded({ tokens: { text: [], kind: "xiisppa" }, grids: [], regions });
  assert.deepEqual(
    tokenRuns(data),
    Array.from({ length: 6 }, (_, row) => ({ row })),
  );
  assert.equal(placeName(data, 2), "upper half, token 2 of 2");
});

test("places are named by row and column from 1, and by grid where there are several", () => {
  assert.equal(placeName(decoded(), 5), "row 2, column 2");
  assert.equal(placeName(decoded(), 7), "prompt token");
  const several = decoded({ grids: [grid(1, 2, 1, "overview"), grid(2, 2, 3, "tile 1")] });
  assert.equal(placeName(several, 6), "tile 1, row 2, column 2");
});

const canvas = (fields) => new PatchCanvas(decoded(fields), null, null);
const original = { grid: 0, view: "picture" };
const seen = { grid: 0, view: "encoder" };
const arrows = { up: [-1, 0], down: [1, 0], left: [0, -1], right: [0, 1] };

test("a point leads to the patch under it, in the original and as the encoder saw it", () => {
  const view = canvas({ image: picture(96, 32), seen: [0, 0, 48, 32] });
  assert.equal(view.patchAt(original, 20 / 96, 20 / 32), 4);
  assert.equal(view.patchAt(original, 60 / 96, 20 / 32), null);
  assert.equal(view.patchAt(seen, 0.99, 0.99), 5);
});

test("arrow keys step from patch to patch and stop at the edge", () => {
  const view = canvas();
  assert.equal(view.step(original, 0, arrows.right), 1);
  assert.equal(view.step(original, 1, arrows.down), 4);
  assert.equal(view.step(original, 4, arrows.left), 3);
  assert.equal(view.step(original, 3, arrows.left), null);
  assert.equal(view.step(original, 3, arrows.down), null);
  assert.equal(view.step(original, 0, arrows.up), null);
});

test("arrow keys step over patches that a crop removed", () => {
  const cut = grid(1, 4, 1);
  const boxes = Float32Array.from([0, 0, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0, 48, 0, 64, 16]);
  const view = canvas({ grids: [{ ...cut, boxes: b64(boxes) }], image: picture(64, 16) });
  assert.equal(view.step(original, 0, arrows.right), 3);
  assert.equal(view.step(original, 3, arrows.left), 0);
  assert.equal(view.step(seen, 0, arrows.right), 1);
});
