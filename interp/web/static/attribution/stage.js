// Pointer and keys over the picture: a patch is pointed at, or kept by a click. Changes only state.hover, state.locked and state.cursor.
/** @import { AttributionData } from "./data.js" */

/** @type {Record<string, number[]>} */
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class Stage {
  /**
   * on: {render(), said(row), root, signal}
   * @param {AttributionData} data
   */
  constructor(data, picture, state, part, on) {
    this.data = data;
    this.picture = picture;
    this.state = state;
    this.part = part;
    this.on = on;
    const listen = (type, fn) => part.stage.addEventListener(type, fn, { signal: on.signal });
    listen("pointermove", (event) => {
      if (event.pointerType !== "touch") this.point(this.under(event));
    });
    listen("pointerleave", () => this.point(null));
    listen("click", (event) => this.lock(this.under(event)));
    listen("keydown", (event) => this.key(event));
    on.root.addEventListener(
      "keydown",
      (event) => {
        if (event.key === "Escape") this.lock(state.locked);
      },
      { signal: on.signal },
    );
  }

  under(event) {
    const index = this.picture.under(event, this.state);
    return index === null ? null : this.data.grids[this.state.grid].positions[index];
  }

  point(row) {
    if (this.state.hover === row) return;
    this.state.hover = row;
    this.on.render();
  }

  // A second click lets the patch go.
  lock(row) {
    const { state } = this;
    if (row === null) return;
    state.locked = state.locked === row ? null : row;
    state.cursor = row;
    this.on.render();
  }

  key(event) {
    const { state, data, picture, part, on } = this;
    const { positions } = data.grids[state.grid];
    if (!positions.length) return;
    const place = data.place.get(state.cursor);
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
