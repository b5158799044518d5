// Tokens and numbers as the reader sees them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { percent } from "../../interp/web/static/lens/data.js";
import { ramp } from "../../interp/web/static/shared/colours.js";
import { chance, nats, power } from "../../interp/web/static/shared/figures.js";
import { amount, look, plural, safeLink, share } from "../../interp/web/static/shared/text.js";
import { size, value } from "../../interp/web/static/steer/text.js";

test("blanks, punctuation and pieces of characters are shown as such", () => {
  const looks = [
    [" ", "␣", false, true],
    ["\n", "↵", false, true],
    ["\t", "⇥", false, true],
    ["      ", "␣␣␣␣…", false, true],
    ["", "“”", false, true],
    [",", "“,”", false, true],
    [" .", "“.”", false, true],
    ["<0xE2>", "<0xE2>", false, true],
    ["\ufffd", "\ufffd", false, true],
    [" dog", "dog", true, false],
    ["dog", "dog", false, false],
    ["🐶", "🐶", false, false],
    ["a b", "a b", false, false],
    ["a\nb", "a↵b", false, false],
    ["7", "7", false, false],
    ["</script>", "</script>", false, false],
  ];
  for (const [token, text, lead, dim] of looks) assert.deepEqual(look(token), { text, lead, dim }, JSON.stringify(token));
});

test("a percentage shows no more digits than are stored", () => {
  const cases = [
    [0, "< 0.01 %"],
    [0.00016, "0.02 %"],
    [0.0123, "1.2 %"],
    [0.49, "49 %"],
    [0.979, "97.9 %"],
    [0.9995, "> 99.9 %"],
    [Number.NaN, "not stored"],
  ];
  for (const [p, text] of cases) assert.equal(percent(p), text);
});

test("activations have three digits", () => {
  const cases = [
    [0, "0"],
    [0.0004, "< 0.001"],
    [-0.25, "-0.250"],
    [0.9996, "1.00"],
    [1.234, "1.23"],
    [9.996, "10.0"],
    [12.34, "12.3"],
    [99.96, "100"],
    [123.4, "123"],
    [null, "–"],
    [undefined, "–"],
    [Number.NaN, "–"],
  ];
  for (const [v, text] of cases) assert.equal(amount(v), text);
});

test("shares and counts", () => {
  assert.deepEqual([0, 0.00005, 0.004, 0.031, 0.5, null].map(share), ["0 %", "< 0.01 %", "0.40 %", "3.1 %", "50 %", "–"]);
  assert.equal(plural(1, "patch", "patches"), "1 patch");
  assert.equal(plural(4096, "feature"), "4,096 features");
});

test("only addresses that are https become links", () => {
  assert.equal(safeLink("https://www.neuronpedia.org/x"), "https://www.neuronpedia.org/x");
  for (const bad of ["javascript:alert(1)", "http://a.b", "//a.b", "data:text/html,x", "", " "]) assert.equal(safeLink(bad), null);
});

test("small probabilities stay readable", () => {
  const cases = [
    [0, "0 %"],
    [1, "> 99.9 %"],
    [0.9996, "> 99.9 %"],
    [0.998, "99.8 %"],
    [0.72, "72.0 %"],
    [0.003, "0.3 %"],
    [0.00012, "0.012 %"],
    [3.4e-6, "0.00034 %"],
    [8.9e-9, "8.9·10⁻⁷ %"],
    [1e-8, "10⁻⁶ %"],
  ];
  for (const [p, text] of cases) assert.equal(chance(p), text);
  assert.equal(power(1e-6), "10⁻⁶");
});

test("values have a sign where they are added", () => {
  assert.equal(value("strength", -0.25), "−0.25");
  assert.equal(value("strength", 0.1), "+0.1");
  assert.equal(value("amount", 12), "+12");
  assert.equal(value("target", 40), "40");
  assert.equal(value("target", -2), "−2");
  assert.equal(value("strength", 0), "0");
});

test("nats and lengths", () => {
  assert.deepEqual([0, 0.00005, 0.0012, 0.4, 12.34].map(nats), ["0", "< 0.0001", "0.0012", "0.400", "12.3"]);
  assert.deepEqual([0, 0.01234, 12.34, 1234.5].map(size), ["0", "0.0123", "12.3", "1235"]);
});

test("the colour scale runs from dark to bright and ends at its ends", () => {
  assert.deepEqual(ramp(0), [68, 1, 84]);
  assert.deepEqual(ramp(1), [253, 231, 37]);
  assert.deepEqual(ramp(-3), ramp(0));
  assert.deepEqual(ramp(7), ramp(1));
  const light = Array.from({ length: 21 }, (_, i) => ramp(i / 20)).map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b);
  for (let i = 1; i < light.length; i++) assert.ok(light[i] > light[i - 1]);
});
