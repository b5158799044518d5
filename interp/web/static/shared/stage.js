// Pointer and keys over the picture: a patch is pointed at, or kept by a click. Changes only state.hover, state.locked and state.cursor.
/** @import { PatchCanvas, PictureData, PictureState } from "./canvas.js" */
import { MOVES } from "./canvas.js";

/**
 * What it changes; `cursor` is the patch that the keys stand on.
 * @typedef {PictureState & { cursor: number | null, hover: number | null, locked: number | null }} StageState
 *
 * `said` puts a position into words for readers who hear the page; `root`: where Escape lets a patch go.
 * @typedef {{ render(): void, said(row: number): string, root: HTMLElement, signal: AbortSignal }} StageHost
 */

/**
 * The places of a picture that is shown for the first time.
 * @param {PictureData & { finest: number }} data
 */
export function places(data) {
  return {
    grid: data.finest,
    view: "picture",
    hover: /** @type {number | null} */ (null),
    locked: /** @type {number | null} */ (null),
    shownRow: /** @type {number | null} */ (null),
    cursor: data.grids[data.finest].positions[0] ?? null,
  };
}

/** @template {PictureData} D */
export class Stage {
  /**
   * @param {D} data
   * @param {PatchCanvas<D>} picture
   * @param {StageState} state
   * @param {Record<string, any>} part
   * @param {StageHost} on
   */
  constructor(data, picture, state, part, on) {
    this.data = data;
    this.picture = picture;
    this.state = state;
    this.part = part;
    this.on = on;
    const { stage } = /** @type {{ stage: HTMLElement }} */ (part);
    const { signal } = on;
    stage.addEventListener(
      "pointermove",
      (event) => {
        if (event.pointerType !== "touch") this.point(this.under(event));
      },
      { signal },
    );
    stage.addEventListener("pointerleave", () => this.point(null), { signal });
    stage.addEventListener("click", (event) => this.lock(this.under(event)), { signal });
    stage.addEventListener("keydown", (event) => this.key(event), { signal });
    on.root.addEventListener(
      "keydown",
      (event) => {
        if (event.key === "Escape") this.lock(state.locked);
      },
      { signal },
    );
  }

  /** @param {{ clientX: number, clientY: number }} event */
  under(event) {
    const index = this.picture.under(event, this.state);
    return index === null ? null : this.data.grids[this.state.grid].positions[index];
  }

  /** @param {number | null} row */
  point(row) {
    if (this.state.hover === row) return;
    this.state.hover = row;
    this.on.render();
  }

  /**
   * A second click lets the patch go.
   * @param {number | null} row
   */
  lock(row) {
    const { state } = this;
    if (row === null) return;
    state.locked = state.locked === row ? null : row;
    state.cursor = row;
    this.on.render();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { state, data, picture, part, on } = this;
    const { positions } = data.grids[state.grid];
    if (!positions.length) return;
    const place = state.cursor === null ? undefined : data.place.get(state.cursor);
    const at = place?.grid === state.grid ? place.index : 0;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return this.lock(positions[at]);
    }
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const to = picture.step(state, at, move);
    if (to === null) return;
    state.cursor = state.hover = positions[to];
    if (state.locked !== null) state.locked = state.cursor;
    on.render();
    part.live.textContent = on.said(state.cursor);
  }
}
