// The figures of steering as text: probabilities, nats, values of edits. No DOM.

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
