// Probabilities and nats as text, with digits where changes are small or start from nearly nothing. No DOM.

/** @type {Record<string, string>} */
const SUPER = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/**
 * A number as a power of ten.
 * @param {number} v
 */
export function power(v) {
  const [digits, exponent] = v.toExponential(1).split("e");
  return `${digits === "1.0" ? "" : `${digits.replace(/\.0$/, "")}·`}10${Array.from(String(+exponent), (c) => SUPER[c]).join("")}`;
}

/**
 * A probability in per cent with two significant digits, however small: an edit often turns tiny into small.
 * @param {number} p
 */
export function chance(p) {
  if (p === 0) return "0 %";
  if (p >= 0.9995) return "> 99.9 %";
  const percent = p * 100;
  if (percent >= 0.1) return `${percent.toFixed(1)} %`;
  return `${percent >= 0.0001 ? +percent.toPrecision(2) : power(percent)} %`;
}

/** @param {number} v */
export function nats(v) {
  if (v === 0) return "0";
  if (v < 0.0001) return "< 0.0001";
  return v < 0.01 ? v.toFixed(4) : v < 10 ? v.toFixed(3) : v.toFixed(1);
}
