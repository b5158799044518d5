// Tokens and numbers as the reader sees them. No DOM.

/**
 * How a token is shown. `lead`: it starts with a space; `dim`: it is blank, punctuation or part of a character.
 * @typedef {{ text: string, lead: boolean, dim: boolean }} Look
 */

/**
 * @param {string} text
 * @returns {Look}
 */
export function look(text) {
  if (text.trim() === "") {
    /** @type {Record<string, string>} */
    const signs = { " ": "␣", "\n": "↵", "\r": "↵", "\t": "⇥" };
    const shown = text === "" ? "“”" : Array.from(text.slice(0, 4), (c) => signs[c] || "␣").join("");
    return { text: shown + (text.length > 4 ? "…" : ""), lead: false, dim: true };
  }
  const core = text
    .trim()
    .replace(/[\n\r]/g, "↵")
    .replace(/\t/g, "⇥");
  const lead = /^\s/.test(text);
  if (/^<0x[0-9A-F]{2}>$/i.test(core) || core.includes("\uFFFD")) return { text: core, lead, dim: true };
  // Emoji are \p{So} and count as words.
  if (/^[\p{P}\p{Sm}\p{Sc}\p{Sk}\p{C}\s↵⇥]+$/u.test(core)) return { text: `“${core}”`, lead: false, dim: true };
  return { text: core, lead, dim: false };
}

/**
 * An activation with three digits: activations have no unit, and their scale differs between SAEs.
 * @param {number | null | undefined} v
 */
export function amount(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  const size = Math.abs(v);
  if (size === 0) return "0";
  if (size < 0.001) return "< 0.001";
  return v.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3); // by what it rounds to: 0.9996 is 1.00
}

/** @param {number | null | undefined} v */
export function share(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  if (v === 0) return "0 %";
  if (v < 0.0001) return "< 0.01 %";
  return `${(v * 100).toFixed(v >= 0.1 ? 0 : v >= 0.01 ? 1 : 2)} %`;
}

/**
 * The address if it is a valid https one, else null: nothing else becomes a link.
 * @param {string} text
 */
export function safeLink(text) {
  try {
    const url = new URL(text);
    return url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/**
 * @param {number} count
 * @param {string} one
 */
export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
