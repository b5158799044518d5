// The editor's data: one edit's slider, unit and place, what a typed number means, and the payload's checks.
import assert from "node:assert/strict";
import { test } from "node:test";
import { EditsData } from "../../interp/web/static/edits/data.js";
import * as Edit from "../../interp/web/static/edits/edit.js";
import { chip, edits } from "./payloads.mjs";

test("a typed number is read, finished or not", () => {
  for (const [text, value] of [
    ["0.25", 0.25],
    [" -3 ", -3],
    ["−2.5", -2.5],
    [".5", 0.5],
    ["+1.", 1],
    ["1e3", 1000],
    ["2E-2", 0.02],
  ])
    assert.deepEqual(Edit.number(text), { value }, text);
  for (const text of ["", "-", ".", "1e", "1e-"]) assert.equal(Edit.number(text).unfinished, true, text);
  assert.match(Edit.number("0,5").error, /use a decimal point: 0\.5/);
  assert.match(Edit.number("1e999").error, /too large/);
  for (const text of ["dog", "NaN", "Infinity", "0x10", "1 2"]) assert.ok(Edit.number(text).error && !Edit.number(text).unfinished, text);
});

test("float32 noise is not shown in the number box", () => {
  assert.equal(Edit.shown(Math.fround(0.1)), "0.1");
  assert.equal(Edit.shown(-12.5), "-12.5");
});

test("a slider has 0 and both ends on its steps, and at least fifty steps to the largest activation", () => {
  for (const max of [0.013, 0.4, 1, 3.7, 42, 980]) {
    for (const unit of ["amount", "target"]) {
      const { min, max: end, step } = Edit.range(chip({ max }), unit);
      const whole = (v) => assert.ok(Math.abs(v / step - Math.round(v / step)) < 1e-6, `${v} is on no step of ${step}`);
      whole(min);
      whole(end);
      assert.ok(max / step >= 50 - 1e-9);
      assert.ok(end >= (unit === "amount" ? 2 : 3) * max - 1e-9 && min <= -2 * max + 1e-9);
    }
  }
  for (const [max, unit, low, high] of [
    [6.3, "amount", -12.6, 12.6],
    [6.3, "target", -12.6, 18.9],
    [0, "amount", -20, 20],
    [null, "target", -20, 30],
    [0.037, "target", -0.074, 0.111],
    [412.5, "amount", -825, 825],
  ]) {
    const { min, max: end, step } = Edit.range(chip({ max }), unit);
    assert.ok(min <= low && low - min <= step && end >= high && end - high <= step, `${min} to ${end} for ${max}`);
    assert.ok((end - min) / step >= 40 && (end - min) / step <= 500);
  }
  assert.deepEqual(Edit.range(chip(), "strength"), { min: -1, max: 1, step: 0.05 });
  assert.deepEqual(Edit.range(chip({ max: null }), "target"), Edit.range(chip({ max: 10 }), "target"));
});

test("a feature that is found does something: set below 0 where it is active, else pushed up", () => {
  const { on, where, unit, value } = Edit.fresh(chip({ max: 4.321, on: undefined }));
  assert.deepEqual({ on, where, unit, value }, { on: true, where: "image", unit: "target", value: -4.3 });
  const silent = Edit.fresh(chip({ max: 0, active: [] }));
  assert.deepEqual([silent.unit, silent.value], ["strength", Edit.UP]);
});

test("each unit starts from a value that does something", () => {
  assert.deepEqual(
    ["strength", "amount", "target"].map((unit) => Edit.start(chip({ max: 3.4567 }), unit)),
    [0.5, 3.46, 0],
  );
});

test("edits told back by the server keep what the visitor chose and take where they are active", () => {
  const mine = [chip({ value: 0.9 }), chip({ feature: 48, value: -1 })];
  const theirs = [chip({ max: 7, active: [[1, 1]] })];
  const [dog, pizza] = Edit.renewed(mine, theirs);
  assert.deepEqual([dog.value, dog.max, dog.active], [0.9, 7, [[1, 1]]]);
  assert.deepEqual(pizza, mine[1]);
  assert.equal(Edit.plain([chip({ max: 1, active: [] })]), Edit.plain([chip()]));
  assert.notEqual(Edit.plain([chip({ value: 0.6 })]), Edit.plain([chip()]));
});

test("places and activity in words", () => {
  assert.equal(Edit.placeWords("answer"), "on the answer");
  assert.equal(Edit.placeWords({ patches: [[0, 1]], grid: 0 }), "on 1 chosen patch");
  assert.equal(Edit.activity(chip()), "active on 1 patch here, up to 4.00");
  assert.equal(Edit.activity(chip({ active: [], max: 0 })), "not active here");
  assert.equal(Edit.activity(chip({ active: [], max: null })), "");
  assert.deepEqual(Edit.activePlace(chip()), { patches: [[0, 1]], grid: 0 });
});

test("a damaged edit is refused in words, whichever part it is", () => {
  const damage = {
    sae: 3,
    layer: -1,
    feature: 1.5,
    label: null,
    unit: "percent",
    value: "0.5",
    where: "nowhere",
    max: "4",
    active: [[0]],
    on: 1,
  };
  for (const [name, bad] of Object.entries(damage))
    assert.throws(() => new EditsData(edits({ edits: [chip({ [name]: bad })] })), new RegExp(`edit 1 has .* as its ${name}\\.`));
  for (const bad of [{ patches: [] }, { patches: [[0, 1]], grid: -1 }, { patches: [[0, "1"]] }, null])
    assert.throws(() => new EditsData(edits({ edits: [chip({ where: bad })] })), /as its where/);
  assert.throws(() => new EditsData(edits({ swept: 1 })), /the sweep is of edit 2, of 1/);
});

test("the data holds copies, and patches without a grid are of the first", () => {
  const given = chip({ where: { patches: [[1, 1]] } });
  const [mine] = new EditsData(edits({ edits: [given] })).edits;
  assert.deepEqual(mine.where, { patches: [[1, 1]], grid: 0 });
  mine.where.patches[0][0] = 9;
  assert.deepEqual(given.where, { patches: [[1, 1]] });
});

test("patches that are not on this picture are a problem, named", () => {
  const data = new EditsData(edits());
  assert.equal(data.problem(chip()), "");
  assert.equal(data.problem(chip({ where: { patches: [[1, 2]], grid: 0 } })), "");
  assert.match(data.problem(chip({ where: { patches: [[2, 0]], grid: 0 } })), /Row 3, column 1 is not on this picture of 2×3 patches/);
  assert.match(data.problem(chip({ where: { patches: [[0, 0]], grid: 1 } })), /of grid 2; this picture has 1 grid/);
});
