// Signed logits as text. No DOM.

/**
 * A number of logits with its sign and three digits.
 * @param {number | null | undefined} v
 */
export function signed(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  const size = Math.abs(v);
  if (size < 0.0005) return "0";
  return (v < 0 ? "−" : "+") + size.toFixed(size >= 9.995 ? 1 : size >= 0.0995 ? 2 : 3);
}

/**
 * How far the word leads, in words.
 * @param {number} margin
 */
export function lead(margin) {
  return margin >= 0 ? `leads by ${signed(margin).slice(1) || "0"}` : `is behind by ${signed(margin).slice(1)}`;
}

/** @param {number | null} r */
export function correlation(r) {
  return r === null ? "–" : r.toFixed(r > 0.995 && r < 1 ? 3 : 2).replace("-", "−");
}

/**
 * A probability in per cent, small ones with two digits.
 * @param {number} p
 */
export function chance(p) {
  if (p >= 0.9995) return "> 99.9 %";
  const percent = 100 * p;
  if (percent >= 0.1) return `${percent.toFixed(1)} %`;
  return percent >= 0.0001 ? `${+percent.toPrecision(2)} %` : p > 0 ? "< 0.0001 %" : "0 %";
}
