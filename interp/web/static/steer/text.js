// The figures of steering as text: values of edits and what they push. No DOM.

/**
 * The value of an edit: additions have a sign, targets only when negative.
 * @param {string} unit
 * @param {number} v
 */
export function value(unit, v) {
  const text = String(+Math.abs(v).toPrecision(4));
  return (v < 0 ? "−" : v > 0 && unit !== "target" ? "+" : "") + text;
}

/** @param {number} v */
export function size(v) {
  return v === 0 ? "0" : v >= 100 ? v.toFixed(0) : String(+v.toPrecision(3));
}

/**
 * What an edit pushes, in words.
 * @param {{ label: string, feature: number | null }} direction
 */
export function name({ label, feature }) {
  return label || `feature ${feature}`;
}
