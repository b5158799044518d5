// The row of tokens, with a few lines in place of a browser: what it tells its host, and which buttons the Tab key reaches.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Chips } from "../../interp/web/static/shared/chips.js";

class FakeNode {
  constructor() {
    Object.assign(this, { children: [], attributes: {}, classes: new Set(), style: {}, listeners: {}, textContent: "" });
    this.classList = { toggle: (name, on) => (on ? this.classes.add(name) : this.classes.delete(name)) };
    this.style.setProperty = (name, value) => {
      this.style[name] = value;
    };
    this.style.removeProperty = (name) => delete this.style[name];
  }
  append(...nodes) {
    this.children.push(...nodes);
  }
  replaceChildren(...nodes) {
    this.children = nodes;
  }
  setAttribute(name, value) {
    this.attributes[name] = value;
  }
  contains(node) {
    return node === this || this.children.some((child) => child.contains?.(node));
  }
  addEventListener(type, fn) {
    this.listeners[type] = fn;
  }
  focus() {
    this.box.listeners.focusin({ target: this });
  }
}

globalThis.document = { createElement: () => new FakeNode(), createTextNode: (text) => ({ text }) };
globalThis.getComputedStyle = (box) => ({ direction: box.direction ?? "ltr" });

function row(tokens, options) {
  const box = new FakeNode();
  const told = [];
  const chips = new Chips(
    box,
    { choose: (i) => told.push(["choose", i]), point: (i) => told.push(["point", i]) },
    new AbortController().signal,
  );
  chips.draw(tokens, options);
  for (const node of chips.nodes) node.box = box;
  const fire = (type, i, more) => box.listeners[type]({ target: chips.nodes[i] ?? null, preventDefault() {}, ...more });
  return { box, chips, told, fire };
}

test("a click chooses a token, once, though focus and click both arrive", () => {
  const { chips, told, fire } = row([" a", " dog", "."], { at: 0 });
  fire("focusin", 1);
  fire("click", 1);
  assert.deepEqual(told, [["choose", 1]]);
  assert.deepEqual(
    chips.nodes.map((node) => [node.tabIndex, node.attributes["aria-pressed"]]),
    [
      [-1, "false"],
      [0, "true"],
      [-1, "false"],
    ],
  );
});

test("pointing is told apart from choosing, and a finger does not point", () => {
  const { chips, told, fire } = row([" a", " dog", "."]);
  fire("pointerover", 2, { pointerType: "mouse" });
  assert.equal(chips.read, 2);
  fire("pointerleave", -1);
  assert.equal(chips.read, 0);
  fire("pointerover", 1, { pointerType: "touch" });
  assert.deepEqual(told, [
    ["point", 2],
    ["point", null],
  ]);
});

test("arrow keys, Home and End move, and stop at the ends; right to left they turn round", () => {
  const { box, chips, fire } = row(["a", "b", "c"]);
  for (const [key, at] of [
    ["ArrowRight", 1],
    ["End", 2],
    ["ArrowRight", 2],
    ["Home", 0],
    ["ArrowLeft", 0],
  ]) {
    fire("keydown", chips.chosen, { key });
    assert.equal(chips.chosen, at, key);
  }
  box.direction = "rtl";
  fire("keydown", 0, { key: "ArrowLeft" });
  assert.equal(chips.chosen, 1);
});

test("text stays text, the end is named, and a tint comes and goes", () => {
  const { chips } = row([" <b>", "</s>"], { end: 1 });
  assert.deepEqual(
    chips.nodes.map((node) => node.attributes["aria-label"]),
    ["<b>", "end of the answer"],
  );
  chips.tint([0.25, 1]);
  assert.equal(chips.nodes[0].style["--share"], "0.25");
  chips.tint(null);
  assert.equal(chips.nodes[0].style["--share"], undefined);
});
