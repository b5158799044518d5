// The concepts view's data: codes by position, scales, orders, what was moved; and figures as text.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConceptData, ticks } from "../../interp/web/static/concepts/data.js";
import { far, figure, stable } from "../../interp/web/static/concepts/text.js";
import { conceptItem, concepts, shifted } from "./payloads.mjs";

const NONE = [0, 0, 0, 0, 0, 0, 0, 0, 0];
const made = (fields) =>
  new ConceptData(
    concepts(
      [conceptItem(0), conceptItem(1)],
      [
        [9, 2, 1, 0, 0, 0, 0, 9, 0],
        [0, 0, 1, 2, 0, 0, 0, 0, 0],
      ],
      fields,
    ),
  );

test("a concept's code at each row, of which BOS and text set no scale", () => {
  const [dog] = made().concepts;
  assert.deepEqual([...dog.at], [9, 2, 1, 0, 0, 0, 0, 9, 0]);
  assert.equal(dog.peakRow, 1);
  assert.deepEqual([dog.low, dog.top], [0, 4]); // what it reaches on its own picture
});

test("shares are of the most that it reaches anywhere", () => {
  const data = made();
  const [dog] = data.concepts;
  assert.equal(data.share(dog, 1), 0.5);
  assert.equal(data.share(dog, 0), 1);
  assert.equal(data.most(dog), 0.5);
  assert.deepEqual(data.sharesOf(dog, dog.examples[0]), [1, 0.25]);
  assert.deepEqual(data.sharesOf(dog, { ...dog.examples[0], map: "" }), []);
});

test("codes that are never 0 are shown from the lowest of the picture on", () => {
  const { dictionary } = concepts([conceptItem(0)], [NONE]);
  const codes = [[9, 3, 1, 2, 1, 1, 1, 9, 9]];
  const data = new ConceptData(concepts([conceptItem(0)], codes, { dictionary: { ...dictionary, method: "k-means" } }));
  const [only] = data.concepts;
  assert.equal(only.low, 1);
  assert.equal(data.share(only, 1), 2 / 3);
  assert.equal(data.share(only, 2), 0);
});

test("the order of the cards, and what a place has most of", () => {
  const data = made({
    shift: { before: "a", after: "b", compared: 9, correlation: null, concepts: [shifted(1), shifted(0, { relative: 0.05 })] },
  });
  const numbers = (list) => list.map(({ concept }) => concept);
  assert.deepEqual(numbers(data.ordered("size")), [0, 1]);
  assert.deepEqual(numbers(data.ordered("moved")), [1, 0]);
  assert.deepEqual(numbers(data.strongest(3, 1)), [1]);
});

test("only concepts with both figures are points of the scatter", () => {
  const moved = [shifted(0, { recovery: null }), shifted(1)];
  const data = made({ shift: { before: "a", after: "b", compared: 9, correlation: null, concepts: moved } });
  assert.deepEqual(data.points, [{ concept: 1, consistency: 0.5, recovery: 0.25, relative: 0.1 }]);
  assert.deepEqual(made().points, []);
});

test("an axis marks its lower end only where that is clear of 0", () => {
  assert.deepEqual(ticks(0, 1), [0, 0.5, 1]);
  assert.deepEqual(ticks(-0.03, 1), [0, 0.5, 1]);
  assert.deepEqual(ticks(-0.4, 1), [-0.4, 0, 0.5, 1]);
});

test("stability of all concepts", () => {
  const concept = (stability, i) => conceptItem(i, { stability });
  const of = (...values) =>
    new ConceptData(
      concepts(
        values.map(concept),
        values.map(() => NONE),
      ),
    ).stability;
  assert.deepEqual(of(0.9, 0.5, 0.7), { lowest: 0.5, middle: 0.7 });
  assert.deepEqual(of(1, 0.5), { lowest: 0.5, middle: 0.75 });
});

test("a concept without words goes by its number", () => {
  const data = made();
  assert.equal(data.name(data.concepts[1]), "word1");
  assert.equal(data.name({ concept: 7, words: [] }), "concept 7");
});

test("damaged data is refused", () => {
  assert.throws(() => new ConceptData(concepts([], [])), /no concepts/);
  assert.throws(() => new ConceptData(concepts([conceptItem(0)], [NONE.slice(1)])), /codes has 32 bytes, not 36/);
  assert.throws(() => made({ schema: "other" }), /reads llava-microscope\/concepts-view\/1/);
});

test("figures", () => {
  assert.deepEqual([figure(0.5), figure(-0.25), figure(-0.001), figure(null)], ["0.50", "−0.25", "0.00", "–"]);
  assert.deepEqual([stable(0.95), stable(0.75), stable(0.2)], ["stable", "fairly stable", "unstable"]);
  assert.deepEqual([far(1, "amount"), far(0.5, "amount")], ["all of the way", "0.50 of the way"]);
  assert.equal(far(1.5, "strength"), "1.50 of the usual state's length");
});
