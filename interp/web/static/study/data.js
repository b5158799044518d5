// What a study knows of a feature as typed arrays, and what is computed from it: the histogram's bars, the scale of the maps, sentences. No DOM.
/** @import { IndexedHistogram, IndexedItem, IndexedPicture, StudyFacts, StudyPart } from "../payloads.js" */
import { decodeArray, decodeBytes } from "../shared/payload.js";
import { amount, plural } from "../shared/text.js";

export const SCHEMA = "llava-microscope/study-view/1";
const FEWEST = 8; // bins that the plot has room for: bars of fewer are not wider

/**
 * A picture with the patches on which the feature is active, the weakest first, so that the strongest are drawn over them.
 * @typedef {{ box: number[], value: number }} ActivePatch
 * @typedef {Omit<IndexedPicture, "boxes" | "values"> & { patches: ActivePatch[] }} TopPicture
 *
 * `most`: the highest activation on its pictures, where the colour scale ends.
 * @typedef {Omit<IndexedItem, "top"> & { top: TopPicture[], most: number }} StudiedFeature
 *
 * A bar from `low` to `high`, in shares of the plot, for tokens of one kind.
 * @typedef {{ x: number, width: number, low: number, high: number, kind: "pictures" | "text", said: string }} Bar
 */

/**
 * @param {StudyPart} part
 * @returns {{ study: StudyFacts, feature: StudiedFeature }}
 */
export function decode({ study, feature }) {
  const top = feature.top.map((one) => picture(one));
  return { study, feature: { ...feature, top, most: Math.max(0, ...top.flatMap(({ patches }) => patches.map(({ value }) => value))) } };
}

/**
 * @param {IndexedPicture} raw
 * @returns {TopPicture}
 */
function picture({ boxes, values, ...one }) {
  const count = decodeBytes(values).length / 4;
  const box = decodeArray(Float32Array, boxes, 4 * count, "boxes");
  const value = decodeArray(Float32Array, values, count, "values");
  const patches = Array.from(value, (v, i) => ({ box: Array.from(box.subarray(4 * i, 4 * i + 4)), value: v }));
  return { ...one, patches: patches.sort((a, b) => a.value - b.value) };
}

/**
 * The bars of a histogram: text stands on pictures.
 * @param {IndexedHistogram} histogram
 * @returns {{ bars: Bar[], most: number, width: number }} `width`: of a bin
 */
export function bars({ edges, on_pictures: pictures, on_text: text }) {
  const most = Math.max(0, ...pictures.map((count, i) => count + text[i]));
  const width = 1 / Math.max(FEWEST, pictures.length);
  const out = pictures.flatMap((count, i) => {
    const at = `${amount(edges[i])} to ${amount(edges[i + 1])}`;
    /** @type {Bar[]} */
    const both = [
      { x: i * width, width, low: 0, high: count / most, kind: "pictures", said: `${at}: ${plural(count, "image token")}` },
      {
        x: i * width,
        width,
        low: count / most,
        high: (count + text[i]) / most,
        kind: "text",
        said: `${at}: ${plural(text[i], "text token")}`,
      },
    ];
    return both.filter(({ low, high }) => high > low);
  });
  return { bars: out, most, width };
}

/**
 * How often a feature is active.
 * @param {StudiedFeature} feature
 * @param {StudyFacts} study
 */
export function counts({ pictures, tokens, peak }, { samples }) {
  if (!pictures) return `Active on none of the study's ${samples.toLocaleString("en")} pictures.`;
  const percent = (100 * pictures) / samples;
  return (
    `Active on ${pictures.toLocaleString("en")} of ${samples.toLocaleString("en")} pictures (${percent < 1 ? +percent.toPrecision(1) : Math.round(percent)} %), ` +
    `on ${plural(tokens, "image token")}; at most ${amount(peak)}.`
  );
}

/**
 * A score with the controls beside it.
 * @param {{ name: string, value: number | null, controls: { name: string, value: number | null }[] }} score
 */
export function scored({ name, value, controls }) {
  const figure = (/** @type {number | null} */ v) => (v === null ? "–" : Math.abs(v) >= 10 ? v.toFixed(1) : v.toFixed(2));
  const beside = controls.map((control) => `${control.name} ${figure(control.value)}`).join(", ");
  return { said: `${name} ${figure(value)}`, beside };
}

/**
 * The address of a feature, relative to the page's own.
 * @param {{ studies: string[], study: string, feature: number }} where
 */
export function address({ studies, study, feature }) {
  return `?feature=${feature}${studies.length > 1 ? `&study=${encodeURIComponent(study)}` : ""}`;
}
