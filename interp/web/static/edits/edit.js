// One steering edit: the range of its slider, its unit and place in words, what a typed number means. No DOM.
/** @import { EditItem, PatchPlace } from "../payloads.js" */
import { amount, plural } from "../shared/text.js";

/**
 * A feature that was found or handed over: an edit without unit, value and place.
 * @typedef {Pick<EditItem, "sae" | "layer" | "feature" | "label" | "max" | "active">} Found
 *
 * @typedef {"strength" | "amount" | "target"} Unit
 */

/** @type {[Unit, string][]} */
export const UNITS = [
  ["strength", "push"],
  ["amount", "add"],
  ["target", "set to"],
];

/** @type {[string, string][]} */
export const PLACES = [
  ["all", "everywhere"],
  ["image", "image tokens"],
  ["prompt", "prompt tokens"],
  ["answer", "the answer"],
];

export const UP = 0.5; // the strength that "turn up" means
const UNKNOWN = 10; // stands in for the largest activation when that is unknown
const STEPS = 50; // a slider has at least so many between 0 and the largest activation

/** @type {(v: unknown) => boolean} */
export const isCount = (v) => Number.isInteger(v) && Number(v) >= 0;

/** @type {(v: unknown) => boolean} */
const isPatches = (v) => Array.isArray(v) && v.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isCount));

/** @type {(v: any) => boolean} */
const isPlace = (v) =>
  typeof v === "string"
    ? PLACES.some(([key]) => key === v)
    : Boolean(v) && isPatches(v.patches) && v.patches.length > 0 && isCount(v.grid ?? 0);

/** @type {{ [K in keyof EditItem]: (v: unknown) => boolean }} */
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

/**
 * A copy of an edit; throws when a field is not what it must be.
 * @param {any} raw
 * @param {string} what
 * @returns {EditItem}
 */
export function check(raw, what) {
  for (const [name, fits] of Object.entries(FIELDS)) {
    if (!raw || !fits(raw[name]))
      throw new Error(`The data of this view is damaged: ${what} has ${JSON.stringify(raw?.[name]) ?? "nothing"} as its ${name}.`);
  }
  const made = structuredClone(raw);
  if (typeof made.where === "object") made.where.grid ??= 0;
  return made;
}

/** @type {(a: { sae: string, feature: number }, b: { sae: string, feature: number }) => boolean} */
export const sameFeature = (a, b) => a.sae === b.sae && a.feature === b.feature;

/** @type {(a: EditItem["where"], b: EditItem["where"]) => boolean} */
export const samePlace = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** @type {(edit: { label: string, feature: number }) => string} */
export const name = ({ label, feature }) => label || `feature ${feature}`;

/**
 * @param {number | null} max
 * @returns {max is number}
 */
function known(max) {
  return max !== null && max > 0;
}

/** @type {(edit: { max: number | null }) => number} */
const largest = ({ max }) => (known(max) ? max : UNKNOWN);

/** @type {(edit: { max: number | null, active: number[][] }) => boolean} */
export const isActive = ({ max, active }) => active.length > 0 || known(max);

/** @type {(edit: { active: number[][] }) => PatchPlace} */
export const activePlace = ({ active }) => ({ patches: active.map((pair) => [...pair]), grid: 0 });

/**
 * A found feature as an edit that does something: if it is active here, set to minus its largest activation, else pushed up. Both measured best
 * on the embedded model; switching off one feature alone leaves much of its meaning to others.
 * @template {Found} F
 * @param {F} found
 */
export function fresh(found) {
  return {
    ...found,
    ...(isActive(found) ? { unit: "target", value: -largest(found).toPrecision(2) } : { unit: "strength", value: UP }),
    where: "image",
    on: true,
  };
}

/**
 * What the visitor decides about edits, as one text; the rest comes from the host.
 * @param {EditItem[]} edits
 */
export function plain(edits) {
  return JSON.stringify(edits.map(({ sae, feature, unit, value, where, on }) => [sae, feature, unit, value, where, on]));
}

/**
 * The same edits; where their features are active is taken from `others`.
 * @param {EditItem[]} edits
 * @param {EditItem[]} others
 * @returns {EditItem[]}
 */
export function renewed(edits, others) {
  return edits.map((one) => {
    const { max, active } = others.find((other) => sameFeature(other, one)) ?? one;
    return { ...one, max, active };
  });
}

/**
 * The first value of a unit that has not been used yet.
 * @param {{ max: number | null }} chip
 * @param {Unit} unit
 */
export function start(chip, unit) {
  return { strength: UP, amount: +largest(chip).toPrecision(3), target: 0 }[unit];
}

/**
 * The slider's range; 0 and both ends are on a step.
 * @param {{ max: number | null }} chip
 * @param {string} unit
 */
export function range(chip, unit) {
  if (unit === "strength") return { min: -1, max: 1, step: 0.05 };
  const m = largest(chip);
  const decade = 10 ** Math.floor(Math.log10(m / STEPS));
  const step = decade * ([5, 2].find((of) => of * decade <= m / STEPS) ?? 1);
  const end = (/** @type {number} */ times) => +(Math.ceil((times * m) / step - 1e-9) * step).toPrecision(12);
  return unit === "amount"
    ? { min: -end(2), max: end(2), step: +step.toPrecision(1) }
    : { min: -end(2), max: end(3), step: +step.toPrecision(1) };
}

/**
 * What the text of a number box means: a value, or an error. `unfinished`: it can still become a number.
 * @param {string} text
 * @returns {{ value?: number, error?: string, unfinished?: boolean }}
 */
export function number(text) {
  const plain = text.trim().replace(/^\u2212/, "-");
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain)) {
    const value = Number(plain);
    return Number.isFinite(value) ? { value } : { error: `${plain} is too large for a number.` };
  }
  if (plain === "") return { error: "Type a number.", unfinished: true };
  if (/^[+-]?\d+,\d+$/.test(plain)) return { error: `“${plain}” is not a number; use a decimal point: ${plain.replace(",", ".")}.` };
  return { error: `“${plain}” is not a number.`, unfinished: /^[+-]?(\d*\.?\d*)(e[+-]?)?$/i.test(plain) };
}

/**
 * As a number box shows it: beyond six digits a float32 has only noise.
 * @param {number} value
 */
export function shown(value) {
  return String(+value.toPrecision(6));
}

/** @param {{ unit: string, max: number | null }} chip */
export function explain({ unit, max }) {
  const most = known(max) ? `; its largest here is ${amount(max)}` : max === 0 ? "; it is not active here" : "";
  if (unit === "strength")
    return "Strength: a fraction of the usual residual norm, added along the feature’s direction; below 0 pushes it down.";
  if (unit === "amount") return `Amount: adds that much activation${most}.`;
  return `Target: sets its activation to this; 0 switches the feature off, below 0 pushes further${most}.`;
}

/**
 * Where a found feature is active on the picture, in words.
 * @param {{ max: number | null, active: number[][] }} found
 */
export function activity({ max, active }) {
  if (active.length) return `active on ${plural(active.length, "patch", "patches")} here${known(max) ? `, up to ${amount(max)}` : ""}`;
  return known(max) ? `active here, up to ${amount(max)}` : max === 0 ? "not active here" : "";
}

/** @type {Record<string, string>} */
const PLACE_WORDS = { all: "everywhere", image: "on the image tokens", prompt: "on the prompt tokens", answer: "on the answer" };

/** @param {EditItem["where"]} where */
export function placeWords(where) {
  if (typeof where === "string") return PLACE_WORDS[where];
  return `on ${plural(where.patches.length, "chosen patch", "chosen patches")}`;
}
