// What the views of one page share: each comes as a script of its own, so they meet in one global object and through DOM events.

const NOTHING = {
  views: 0,
  waitingPlace: null,
  waitingEdit: null,
  waitingWord: null,
  waitingFeature: null,
  waitingLocated: null,
  waitingStudy: null,
};

/**
 * @typedef {{ [name in keyof typeof NOTHING]: any } & { views: number, [mount: string]: any }} Page
 * @type {Page}
 */
export const page = /** @type {any} */ (globalThis).Microscope ?? { ...NOTHING };
/** @type {any} */ (globalThis).Microscope = page;

// Radio groups need names that are unique in the page, whichever views are on it.
export function uniqueNumber() {
  return ++page.views;
}

/**
 * A tab of the page, or null. On a narrow page gradio keeps some tabs in a menu, where only their text identifies them.
 * @param {string} id
 * @param {string} text
 * @returns {HTMLElement | null}
 */
function tab(id, text) {
  const found = document.querySelector(`#${id}-button`);
  const named = [...document.querySelectorAll("button[role=tab], .overflow-dropdown button")];
  return /** @type {HTMLElement | null} */ (found || named.find((button) => button.textContent.trim() === text) || null);
}

export const featuresTab = () => tab("sae-tab", "SAE features");
export const whyTab = () => tab("why-tab", "Why this word?");
export const attributionTab = () => tab("attribution-tab", "Attribution");
export const steerTab = () => tab("steer-tab", "Steer");
export const studyTab = () => tab("study-tab", "Study");

/**
 * Show the features at a place of the lens view. A view that takes the place cancels the event; if the tab was never opened
 * there is no such view yet, and the place waits here until it is mounted.
 * @param {number} row
 * @param {{ image: { src: string }, prompt: string, answer: string }} payload
 */
export function openFeatures(row, { image, prompt, answer }) {
  const detail = { position: row, of: { image: image.src, prompt, answer } };
  if (document.dispatchEvent(new CustomEvent("llava:patch", { detail, cancelable: true }))) page.waitingPlace = detail;
  featuresTab()?.click();
}

/**
 * Explain a token of the answer, given by its number there; it waits here in the same way, or until its run is shown.
 * @param {number} token
 * @param {{ image: { src: string }, prompt: string, answer: string }} payload
 */
export function openWhy(token, { image, prompt, answer }) {
  const detail = { token, of: { image: image.src, prompt, answer } };
  if (document.dispatchEvent(new CustomEvent("llava:word", { detail, cancelable: true }))) page.waitingWord = detail;
  whyTab()?.click();
}

/**
 * Show in which words of the answer a feature mattered; it waits here in the same way, or until its picture and SAE are shown there.
 * @param {{ sae: string, feature: number }} feature
 * @param {{ image: { src: string }, prompt: string, answer: string }} payload
 */
export function openAttribution(feature, { image, prompt, answer }) {
  const detail = { ...feature, of: { image: image.src, prompt, answer } };
  if (document.dispatchEvent(new CustomEvent("llava:feature", { detail, cancelable: true }))) page.waitingFeature = detail;
  attributionTab()?.click();
}

/**
 * Add a feature to the editor of edits; it waits here in the same way.
 * @param {object} detail
 */
export function openSteer(detail) {
  if (document.dispatchEvent(new CustomEvent("llava:steer", { detail, cancelable: true }))) page.waitingEdit = detail;
  steerTab()?.click();
}

/**
 * Show where a feature is on the picture that is open; it waits here in the same way, or until its SAE is shown there.
 * @param {{ sae: string, feature: number }} detail
 */
export function openLocated(detail) {
  if (document.dispatchEvent(new CustomEvent("llava:locate", { detail, cancelable: true }))) page.waitingLocated = detail;
  featuresTab()?.click();
}

/**
 * Show a feature with all that a study knows of it; it waits here in the same way.
 * @param {{ study: string, feature: number }} detail
 */
export function openStudy(detail) {
  if (document.dispatchEvent(new CustomEvent("llava:study", { detail, cancelable: true }))) page.waitingStudy = detail;
  studyTab()?.click();
}
