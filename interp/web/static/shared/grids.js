// The choice of a grid of patches.
/** @import { PatchGrid } from "./payload.js" */

/**
 * The grids to choose from; a single one leaves no choice.
 * @param {Record<string, any>} part
 * @param {PatchGrid[]} grids
 */
export function gridChoices(part, grids) {
  part.gridBox.hidden = grids.length < 2;
  part.grid.replaceChildren(...grids.map((grid, g) => new Option(`${grid.name} ${grid.rows}×${grid.cols}`, String(g))));
}
