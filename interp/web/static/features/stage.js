// Pointer and keys over the picture: hovering, a click on a patch, a box drawn over several.
// Reports rows of T and boxes by callbacks. Changes only state.drawing and state.cursor.
/** @import { FeatureData } from "./data.js" */
import { MOVES } from "../shared/canvas.js";

export class Stage {
  /**
   * on: {point(row or null, by keys), pick(row), box({grid, r0, c0, r1, c1}), render(), signal}
   * @param {FeatureData} data
   */
  constructor(data, picture, state, part, on) {
    this.data = data;
    this.picture = picture;
    this.state = state;
    this.part = part;
    this.on = on;
    this.from = null;
    this.anchor = null;
    part.stage.setAttribute(
      "aria-label",
      "Patches of the picture. Arrow keys move, Shift and arrow keys draw a box, Enter asks for the features there, Escape goes back.",
    );
    const listen = (type, fn) => part.stage.addEventListener(type, fn, { signal: on.signal });
    listen("pointerdown", (event) => this.down(event));
    listen("pointermove", (event) => this.move(event));
    listen("pointerup", (event) => this.up(event));
    listen("pointercancel", () => this.stop());
    listen("pointerleave", () => {
      if (this.from === null) on.point(null);
    });
    listen("keydown", (event) => this.key(event));
    listen("keyup", (event) => {
      if (event.key === "Shift") this.finish();
    });
    listen("blur", () => this.finish());
  }

  row(index) {
    return index === null ? null : this.data.grids[this.state.grid].positions[index];
  }

  down(event) {
    if (event.button !== 0) return;
    this.stop();
    this.from = this.picture.under(event, this.state);
    this.start = [event.clientX, event.clientY];
    // A finger scrolls the page; a mouse or pen draws, even beyond the edge of the picture.
    if (this.from !== null && event.pointerType !== "touch") this.part.stage.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (event.pointerType === "touch") return;
    const drawing = this.from !== null && event.buttons & 1;
    const index = this.picture.under(event, this.state, Boolean(drawing));
    if (drawing && index !== null) {
      const far = Math.hypot(event.clientX - this.start[0], event.clientY - this.start[1]) > 4;
      this.state.drawing = far && index !== this.from ? this.between(this.from, index) : null;
      this.on.render();
    }
    this.on.point(this.row(index));
  }

  up(event) {
    const { from, state } = this;
    const box = state.drawing;
    this.stop();
    if (from === null) return;
    if (box) this.on.box(box);
    else if (this.picture.under(event, state) === from) this.on.pick(this.row(from));
  }

  stop() {
    this.from = this.anchor = this.state.drawing = null;
    this.on.render();
  }

  between(a, b) {
    const { cols } = this.data.grids[this.state.grid];
    const [ra, ca, rb, cb] = [Math.floor(a / cols), a % cols, Math.floor(b / cols), b % cols];
    return { grid: this.state.grid, r0: Math.min(ra, rb), c0: Math.min(ca, cb), r1: Math.max(ra, rb), c1: Math.max(ca, cb) };
  }

  key(event) {
    const { state, data, on } = this;
    const place = data.place.get(state.cursor);
    const at = place && place.grid === state.grid ? place.index : 0;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (state.drawing) this.finish();
      else on.pick(this.row(at));
      return;
    }
    if (event.key === "Escape" && state.drawing) {
      event.stopPropagation();
      this.stop();
      return;
    }
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const to = this.picture.step(state, at, move);
    if (to === null) return;
    if (event.shiftKey) {
      this.anchor ??= at;
      state.drawing = this.anchor === to ? null : this.between(this.anchor, to);
    } else {
      this.anchor = state.drawing = null;
    }
    state.cursor = this.row(to);
    on.point(state.cursor, true);
  }

  // A box drawn with the keys is final when Shift is released or Enter pressed.
  finish() {
    const box = this.anchor === null ? null : this.state.drawing;
    this.anchor = null;
    if (!box) return;
    this.state.drawing = null;
    this.on.box(box);
  }
}
