// Two answers with their differences marked. Every text goes in by textContent.
/** @import { DiffPiece } from "../payloads.js" */
import { el } from "./elements.js";
import { look } from "./text.js";

/**
 * A marked piece: spaces around it stay unmarked; a piece of only blanks gets visible signs.
 * @param {"del" | "ins"} tag
 * @param {string} text
 * @returns {Node[]}
 */
export function markDiff(tag, text) {
  const core = text.trim();
  if (!core) return [el(tag, "", look(text).text), document.createTextNode(text)];
  const [before, after] = text.split(core);
  return [document.createTextNode(before), el(tag, "", core), document.createTextNode(after)];
}

/**
 * One side of a diff: what both sides share is quiet, what only this side has is marked.
 * @param {DiffPiece[]} diff
 * @param {"plain" | "steered"} side
 */
export function markedSide(diff, side) {
  const quiet = diff.some(({ op }) => op !== "equal");
  return diff
    .filter((piece) => piece[side])
    .flatMap((piece) =>
      piece.op === "equal" ? [el("span", quiet ? "view-same" : "", piece[side])] : markDiff(side === "plain" ? "del" : "ins", piece[side]),
    );
}
