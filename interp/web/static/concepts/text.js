// Figures of concepts as text. No DOM.

/**
 * A number from -1 to 1 with two digits.
 * @param {number | null | undefined} v
 */
export function figure(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  return v
    .toFixed(2)
    .replace("-", "−")
    .replace(/^−(0\.00)$/, "$1");
}

/**
 * How far a concept is found again with other seeds, in words.
 * @param {number} v
 */
export function stable(v) {
  return v >= 0.9 ? "stable" : v >= 0.7 ? "fairly stable" : "unstable";
}

/**
 * How far a step goes.
 * @param {number} value
 * @param {string} unit
 */
export function far(value, unit) {
  if (unit === "amount") return value === 1 ? "all of the way" : `${figure(value)} of the way`;
  return `${figure(value)} of the usual state's length`;
}
