// One steering edit: its slider's range, its unit and place in words, what a typed number means. No DOM.
import { amount, plural } from "../shared/text.js";

export const UNITS = [
  ["strength", "push"],
  ["amount", "add"],
  ["target", "set to"],
];

export const PLACES = [
  ["all", "everywhere"],
  ["image", "image tokens"],
  ["prompt", "prompt tokens"],
  ["answer", "the answer"],
];

export const UP = 0.5; // the strength that "turn up" means
const UNKNOWN = 10; // taken for the largest activation where that is not known
const STEPS = 50; // of a slider, at least, between 0 and the largest activation

export const isCount = (v) => Number.isInteger(v) && v >= 0;

const isPatches = (v) => Array.isArray(v) && v.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isCount));

const isPlace = (v) =>
  typeof v === "string"
    ? PLACES.some(([key]) => key === v)
    : Boolean(v) && isPatches(v.patches) && v.patches.length > 0 && isCount(v.grid ?? 0);

const FIELDS = {
  sae: (v) => typeof v === "string",
  layer: (v) => v === null || isCount(v),
  feature: isCount,
  label: (v) => typeof v === "string",
  unit: (v) => UNITS.some(([key]) => key === v),
  value: Number.isFinite,
  where: isPlace,
  max: (v) => v === null || Number.isFinite(v),
  active: isPatches,
  on: (v) => typeof v === "boolean",
};

// A copy of an edit, refused in words when a part of it is not what it must be.
export function check(raw, what) {
  for (const [name, fits] of Object.entries(FIELDS)) {
    if (!raw || !fits(raw[name]))
      throw new Error(`The data of this view is damaged: ${what} has ${JSON.stringify(raw?.[name]) ?? "nothing"} as its ${name}.`);
  }
  const made = structuredClone(raw);
  if (typeof made.where === "object") made.where.grid ??= 0;
  return made;
}

export const sameFeature = (a, b) => a.sae === b.sae && a.feature === b.feature;

export const samePlace = (a, b) => JSON.stringify(a) === JSON.stringify(b);

export const name = ({ label, feature }) => label || `feature ${feature}`;

const largest = ({ max }) => (max > 0 ? max : UNKNOWN);

export const isActive = ({ max, active }) => active.length > 0 || max > 0;

export const activePlace = ({ active }) => ({ patches: active.map((pair) => [...pair]), grid: 0 });

// A feature that was found or handed over, as an edit that does something: as far below 0 as it is above where it is active, else up.
// Both measured best on the embedded model; a single feature that is only switched off leaves much of its meaning to others.
export function fresh(found) {
  return {
    ...found,
    ...(isActive(found) ? { unit: "target", value: -largest(found).toPrecision(2) } : { unit: "strength", value: UP }),
    where: "image",
    on: true,
  };
}

// What the visitor decides of edits, as one text: the rest is told by the host.
export function plain(edits) {
  return JSON.stringify(edits.map(({ sae, feature, unit, value, where, on }) => [sae, feature, unit, value, where, on]));
}

// The same edits, with what others of the same features know of where these are active.
export function renewed(edits, others) {
  return edits.map((one) => {
    const { max, active } = others.find((other) => sameFeature(other, one)) ?? one;
    return { ...one, max, active };
  });
}

// What a unit starts from when it was not used before.
export function start(chip, unit) {
  return { strength: UP, amount: +largest(chip).toPrecision(3), target: 0 }[unit];
}

// {min, max, step} of the slider: 0 is on a step, and the ends are steps too.
export function range(chip, unit) {
  if (unit === "strength") return { min: -1, max: 1, step: 0.05 };
  const m = largest(chip);
  const decade = 10 ** Math.floor(Math.log10(m / STEPS));
  const step = decade * [5, 2, 1].find((of) => of * decade <= m / STEPS);
  const end = (times) => +(Math.ceil((times * m) / step - 1e-9) * step).toPrecision(12);
  return unit === "amount"
    ? { min: -end(2), max: end(2), step: +step.toPrecision(1) }
    : { min: -end(2), max: end(3), step: +step.toPrecision(1) };
}

// What a text in a number box means: {value}, {error: why not}, or {unfinished: it can still become a number}.
export function number(text) {
  const plain = text.trim().replace(/^\u2212/, "-");
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain)) {
    const value = Number(plain);
    return Number.isFinite(value) ? { value } : { error: `${plain} is too large for a number.` };
  }
  if (plain === "") return { error: "Type a number.", unfinished: true };
  if (/^[+-]?\d+,\d+$/.test(plain)) return { error: `“${plain}” is no number here; write it with a point: ${plain.replace(",", ".")}.` };
  return { error: `“${plain}” is no number.`, unfinished: /^[+-]?(\d*\.?\d*)(e[+-]?)?$/i.test(plain) };
}

// As a number box shows it: what a float32 adds behind the sixth digit is noise.
export function shown(value) {
  return String(+value.toPrecision(6));
}

export function explain(chip) {
  const most = chip.max > 0 ? `; its largest here is ${amount(chip.max)}` : chip.max === 0 ? "; it is not active here" : "";
  if (chip.unit === "strength")
    return "Strength: a fraction of the usual residual norm, added along the feature’s direction; below 0 pushes it down.";
  if (chip.unit === "amount") return `Amount: adds that much activation${most}.`;
  return `Target: sets its activation to this; 0 switches the feature off, below 0 pushes further${most}.`;
}

// Where a feature that was found is active on the picture.
export function activity({ max, active }) {
  if (active.length) return `active on ${plural(active.length, "patch", "patches")} here${max > 0 ? `, up to ${amount(max)}` : ""}`;
  return max > 0 ? `active here, up to ${amount(max)}` : max === 0 ? "not active here" : "";
}

export function placeWords(where) {
  if (typeof where === "string")
    return { all: "everywhere", image: "on the image tokens", prompt: "on the prompt tokens", answer: "on the answer" }[where];
  return `on ${plural(where.patches.length, "chosen patch", "chosen patches")}`;
}
