// The editor's payload, checked. No DOM.
/** @import { EditItem, EditsPayload } from "../payloads.js" */
import { decodePatches, requireSchema } from "../shared/payload.js";
import { plural } from "../shared/text.js";
import { check, isCount } from "./edit.js";

const SCHEMA = "llava-microscope/edits/1";

export class EditsData {
  /** @param {EditsPayload} payload */
  constructor(payload) {
    requireSchema(payload, SCHEMA);
    const { edits, swept, presets, scene } = payload;
    this.payload = payload;
    this.run = payload.run ?? null;
    this.edits = edits.map((raw, i) => check(raw, `edit ${i + 1}`));
    if (!isCount(swept) || swept >= Math.max(1, edits.length))
      throw new Error(`The data of this view is damaged: the sweep is of edit ${swept + 1}, of ${edits.length}.`);
    this.swept = swept;
    this.presets = presets.map((preset) => ({
      ...preset,
      edits: preset.edits.map((raw, i) => check(raw, `edit ${i + 1} of “${preset.name}”`)),
    }));
    this.grids = scene ? decodePatches(scene).grids : [];
  }

  /**
   * Why an edit does not fit the picture that is shown, or "".
   * @param {EditItem} edit
   */
  problem({ where }) {
    if (typeof where === "string" || !this.grids.length) return "";
    const grid = this.grids[where.grid];
    if (!grid)
      return `These patches are of grid ${where.grid + 1}; this picture has ${plural(this.grids.length, "grid")}. Choose them again.`;
    const outside = where.patches.find(([r, c]) => r >= grid.rows || c >= grid.cols);
    return outside
      ? `Row ${outside[0] + 1}, column ${outside[1] + 1} is not on this picture of ${grid.rows}×${grid.cols} patches. Choose the patches again.`
      : "";
  }
}
