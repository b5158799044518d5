// One edit as a card: which feature, by how much, in which unit, where; and its switches.
// It keeps the last value of each unit, reports every change by callbacks and changes no edit itself.
import { el, radios } from "../shared/elements.js";
import { uniqueNumber } from "../shared/page.js";
import { plural } from "../shared/text.js";
import * as Edit from "./edit.js";

const TITLES = {
  strength: "add a fraction of the usual residual norm",
  amount: "add this much activation",
  target: "set its activation to this",
};

export class EditCard {
  // group: a name for the radios, unique in the page. on: {change(card, fields, dragging), settle(), run(), remove(card), copy(card), sweep(card),
  // choose(card): open the picker, place(card): close it, picking(card)}
  constructor(group, on) {
    this.on = on;
    this.chip = null;
    this.units = {};
    this.patches = null;
    this.place = "all";
    this.node = el("li", "view-card edits-chip");
    this.node.append(this.head(group), this.amount(group), this.lower());
  }

  head(group) {
    const { on } = this;
    const head = el("div", "edits-head");
    this.mark = el("i", "edits-mark");
    this.title = el("h3");
    this.sweep = el("input");
    Object.assign(this.sweep, { type: "radio", name: `${group}-sweep` });
    this.sweep.addEventListener("change", () => on.sweep(this));
    this.sweepBox = labelled("edits-check", this.sweep, "sweep this");
    this.sweepBox.title = "The sweep varies this edit and leaves the others as they are";
    this.apply = el("input");
    this.apply.type = "checkbox";
    this.apply.addEventListener("change", () => on.change(this, { on: this.apply.checked }));
    const apply = labelled("edits-check view-check", this.apply, "apply");
    apply.title = "When off, the edit stays in the list but does nothing";
    this.remove = button("×", () => on.remove(this));
    this.remove.className = "edits-remove";
    const switches = el("span", "edits-switches");
    switches.append(this.sweepBox, apply);
    head.append(this.mark, this.title, switches, this.remove);
    return head;
  }

  amount(group) {
    const box = el("div", "edits-amount");
    this.unit = el("fieldset", "view-switch");
    this.unit.append(el("legend", "view-hidden", "How"));
    radios(this.unit, `${group}-unit-${uniqueNumber()}`, Edit.UNITS, null, (unit) =>
      this.turn(unit, this.units[unit] ?? Edit.start(this.chip, unit)),
    );
    this.unit.querySelectorAll("label").forEach((node, i) => {
      node.title = TITLES[Edit.UNITS[i][0]];
    });
    this.slider = el("input");
    this.slider.type = "range";
    this.slider.addEventListener("input", () => this.value(+this.slider.value, true));
    this.slider.addEventListener("change", () => this.on.settle());
    this.number = el("input", "edits-number");
    Object.assign(this.number, { type: "text", inputMode: "decimal", autocomplete: "off", maxLength: 40 });
    this.number.addEventListener("input", () => this.typed(false));
    this.number.addEventListener("change", () => this.typed(true));
    this.number.addEventListener("keydown", (event) => this.key(event));
    this.wrong = el("p", "view-note view-bad");
    this.wrong.setAttribute("role", "alert");
    this.about = el("p", "view-note");
    const line = el("div", "edits-line");
    this.track = el("span", "edits-track");
    this.track.append(this.slider);
    line.append(this.track, this.number);
    box.append(this.unit, line, this.wrong, this.about);
    return box;
  }

  lower() {
    const { on } = this;
    const lower = el("div", "edits-lower");
    const label = el("label", "edits-where");
    this.where = el("select");
    this.where.addEventListener("change", () => this.placed(this.where.value));
    label.append(el("span", "view-key", "where"), this.where);
    this.choose = button("Choose patches", () => on.choose(this));
    const off = button("switch off", () => this.turn("target", 0)),
      up = button("turn up", () => this.turn("strength", Edit.UP)),
      copy = button("duplicate", () => on.copy(this));
    off.title = "Set its activation to 0";
    up.title = `Push it by ${Edit.UP * 100} % of the usual residual norm`;
    copy.title = "Add the same feature again, for another place";
    this.quick = [off, up, copy];
    const quick = el("span", "edits-quick");
    quick.append(...this.quick);
    this.lost = el("p", "view-note view-bad");
    lower.append(label, this.choose, el("span", "view-push"), quick, this.lost);
    return lower;
  }

  turn(unit, value) {
    this.number.value = Edit.shown(value);
    this.fault("");
    this.on.change(this, { unit, value });
  }

  value(value, dragging) {
    this.number.value = Edit.shown(value);
    this.fault("");
    this.on.change(this, { value }, dragging);
  }

  // While the visitor types, only text that can no longer become a number is an error. True when the edit has the number in the box.
  typed(done) {
    const { value, error, unfinished } = Edit.number(this.number.value);
    if (error && unfinished && !done) {
      this.fault("");
      return false;
    }
    if (error) {
      this.fault(`${error} The edit keeps ${Edit.shown(this.chip.value)}.`);
      return false;
    }
    this.fault("");
    // The box may show a rounded value from elsewhere; only a typed number is a change.
    if (Edit.shown(this.chip.value) !== Edit.shown(value)) this.on.change(this, { value }, !done);
    if (done) this.on.settle();
    return true;
  }

  key(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      if (this.typed(true)) this.on.run();
    } else if (event.key === "Escape") {
      this.number.value = Edit.shown(this.chip.value);
      this.fault("");
    }
  }

  fault(text) {
    this.number.setAttribute("aria-invalid", String(Boolean(text)));
    if (this.wrong.textContent !== text) this.wrong.textContent = text;
  }

  placed(key) {
    const { chip } = this;
    this.place = key;
    if (key === "chosen") {
      // Start from the patches chosen before, or from where it is active; without either the picker asks for a first patch.
      const patches = this.patches ?? (chip.active.length ? Edit.activePlace(chip) : null);
      if (patches) this.on.change(this, { where: structuredClone(patches) });
      return this.on.choose(this);
    }
    this.on.place(this);
    this.on.change(this, { where: key === "active" ? Edit.activePlace(chip) : key });
  }

  // The picker's choice.
  chosen(where) {
    this.place = "chosen";
    this.on.change(this, { where });
  }

  // Bring every control up to date. `around`: {colour, swept, several, pickable, problem, picking}.
  draw(chip, around) {
    const other = !this.chip || chip.unit !== this.chip.unit || chip.max !== this.chip.max;
    const moved = !this.chip || chip.value !== this.chip.value || chip.unit !== this.chip.unit;
    const { node, number, slider } = this;
    this.chip = chip;
    this.units[chip.unit] = chip.value;
    this.placeOf(chip);
    const who = `${Edit.name(chip)}, feature ${chip.feature}`;
    node.dataset.feature = chip.feature;
    node.setAttribute("aria-label", who);
    node.classList.toggle("edits-off", !chip.on);
    this.mark.style.background = around.colour;
    this.title.replaceChildren(
      el("span", chip.label ? "" : "view-dim", chip.label || "no name"),
      el("small", "", ` · feature ${chip.feature}${chip.layer === null ? "" : ` · layer ${chip.layer}`}`),
    );
    this.title.title = chip.sae;
    this.sweepBox.hidden = !around.several;
    this.sweep.checked = around.swept;
    this.apply.checked = chip.on;
    this.remove.setAttribute("aria-label", `Remove ${who}`);
    this.remove.title = "Remove";
    for (const input of this.unit.querySelectorAll("input")) input.checked = input.value === chip.unit;
    const word = chip.unit[0].toUpperCase() + chip.unit.slice(1);
    if (other) Object.assign(slider, Edit.range(chip, chip.unit));
    this.track.classList.toggle("edits-both", +slider.min < 0);
    if (other || +slider.value !== chip.value) slider.value = chip.value;
    slider.setAttribute("aria-label", `${word} of ${who}`);
    number.setAttribute("aria-label", `${word} of ${who} as a number`);
    // A box being typed into is left alone while it means the same.
    if (moved && Edit.number(number.value).value !== chip.value && Edit.shown(chip.value) !== number.value) {
      number.value = Edit.shown(chip.value);
      this.fault("");
    }
    this.about.textContent = Edit.explain(chip);
    this.options(chip, around);
    for (const node of this.quick) node.setAttribute("aria-label", `${node.textContent}: ${who}`);
    this.lost.textContent = around.problem;
  }

  // Which place of the list it is. Patches where a feature is active may also have been chosen one by one.
  placeOf(chip) {
    const { where } = chip;
    if (typeof where === "string") this.place = where;
    else if (this.place !== "chosen") this.place = Edit.samePlace(where, Edit.activePlace(chip)) ? "active" : "chosen";
    if (this.place === "chosen") this.patches = where;
  }

  options({ active, where }, { pickable, picking }) {
    const count =
      typeof where === "object" && this.place === "chosen" ? ` (${where.patches.length})` : pickable ? " …" : " (run a picture first)";
    const all = [
      ...Edit.PLACES,
      ...(active.length ? [["active", `where active here (${plural(active.length, "patch", "patches")})`]] : []),
      ["chosen", `chosen patches${count}`],
    ];
    if (JSON.stringify(all) !== this.listed) {
      this.listed = JSON.stringify(all);
      this.where.replaceChildren(...all.map(([key, text]) => new Option(text, key)));
    }
    /** @type {HTMLOptionElement} */ (this.where.lastElementChild).disabled = !pickable;
    this.where.value = picking ? "chosen" : this.place;
    this.choose.hidden = picking || this.place !== "chosen" || !pickable;
  }
}

function button(text, click) {
  const node = el("button", "", text);
  node.type = "button";
  node.addEventListener("click", click);
  return node;
}

function labelled(className, input, text) {
  const label = el("label", className);
  label.append(input, el("span", "", text));
  return label;
}
