// What the view says in words. No DOM.
/** @import { Fewest, MapSpec, Score } from "../payloads.js" */
import { chance } from "../shared/figures.js";
import { plural } from "../shared/text.js";

/**
 * Which heads a map is of.
 * @param {Pick<MapSpec, "layer" | "head" | "over">} spec
 */
export function heads({ layer, head, over }) {
  if (layer !== null && head !== null) return `layer ${layer}, head ${head}`;
  return `${over === "max" ? "largest" : "mean"} over ${layer === null ? "all layers and heads" : `the heads of layer ${layer}`}`;
}

/** @param {number} v */
export function auc(v) {
  return v.toFixed(3);
}

/**
 * What a map's score means beside that of a random map.
 * @param {Score} score
 */
export function verdict({ insertion, deletion, random_insertion, random_deletion }) {
  const better = [insertion > random_insertion && "insertion", deletion < random_deletion && "deletion"].filter(Boolean);
  if (better.length === 2) return "Better than a random map by both.";
  return better.length ? `Better than a random map by ${better[0]} only.` : "Not better than a random map: do not read it as evidence.";
}

/**
 * A change of log-odds with its sign.
 * @param {number} v
 */
export function signed(v, digits = 2) {
  const text = Math.abs(v).toFixed(digits);
  return Number(text) === 0 ? text : v < 0 ? `−${text}` : `+${text}`;
}

/**
 * A value of a map with three digits.
 * @param {number} v
 */
export function value(v) {
  const size = Math.abs(v);
  if (size === 0) return "0";
  if (size < 0.001) return v.toExponential(1);
  return v.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3);
}

/**
 * What a search for the fewest patches found.
 * @param {string} word
 * @param {Fewest} found
 */
export function fewest(word, { positions, flipped, instead, before, after, tried }) {
  const count = plural(positions.length, "patch", "patches");
  const change = `“${word}” falls from ${chance(before)} to ${chance(after)}`;
  const cost = `${plural(tried, "set")} of patches tried.`;
  if (flipped) return `Without these ${count} “${(instead ?? "").trim()}” becomes the likeliest word; ${change}. ${cost}`;
  if (!positions.length) return `“${word}” is said without the picture, too. ${cost}`;
  return `“${word}” stays the likeliest word even without these ${count}; ${change}. ${cost}`;
}
