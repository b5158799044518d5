// Choosing patches by click, by drawing over several, or by keys. Nothing but the pointer and the keys: what is chosen belongs to the host.
import { MOVES } from "./canvas.js";

const STRIDE = 3; // pixels between the points that are checked along a fast pointer's path

/**
 * `under` finds the patch below a pointer, `has` whether it is chosen, `put` chooses it or not, `done` follows each finished choice.
 * `at` is the patch that the keys stand on, `step` its neighbour, `moved` follows a step that chose nothing. A host that answers false to `on` is
 * not drawn on now.
 * @typedef {{
 *   on(): boolean,
 *   under(event: { clientX: number, clientY: number }): number | null,
 *   has(index: number): boolean,
 *   put(index: number, chosen: boolean): void,
 *   done(): void,
 *   at(): number,
 *   step(from: number, move: number[]): number | null,
 *   moved(to: number): void,
 * }} BrushHost
 */

export class Brush {
  /**
   * @param {HTMLElement} stage
   * @param {BrushHost} host
   * @param {AbortSignal} signal
   */
  constructor(stage, host, signal) {
    this.stage = stage;
    this.host = host;
    /** @type {{ choosing: boolean, last: { clientX: number, clientY: number } } | null} */
    this.drawing = null;
    stage.addEventListener("pointerdown", (event) => this.down(event), { signal });
    stage.addEventListener("pointermove", (event) => this.move(event), { signal });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) stage.addEventListener(end, () => this.up(), { signal });
    stage.addEventListener("keydown", (event) => this.key(event), { signal });
  }

  /** Stop drawing, as when what is drawn on goes away. */
  stop() {
    this.drawing = null;
  }

  /** @param {PointerEvent} event */
  down(event) {
    const { host } = this;
    if (event.button !== 0 || !host.on()) return;
    const index = host.under(event);
    if (index === null) return;
    this.drawing = { choosing: !host.has(index), last: event };
    host.put(index, this.drawing.choosing);
    this.stage.setPointerCapture(event.pointerId);
  }

  /**
   * Every patch between the last point and this one: a fast pointer reports few points.
   * @param {PointerEvent} event
   */
  move(event) {
    const { drawing, host } = this;
    if (!drawing) return;
    const { clientX: x0, clientY: y0 } = drawing.last,
      { clientX: x1, clientY: y1 } = event;
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / STRIDE));
    for (let i = 1; i <= steps; i++) {
      const index = host.under({ clientX: x0 + ((x1 - x0) * i) / steps, clientY: y0 + ((y1 - y0) * i) / steps });
      if (index !== null) host.put(index, drawing.choosing);
    }
    drawing.last = event;
  }

  up() {
    if (!this.drawing) return;
    this.drawing = null;
    this.host.done();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { host } = this;
    const move = /** @type {Record<string, number[]>} */ (MOVES)[event.key];
    const toggle = event.key === "Enter" || event.key === " ";
    if (!host.on() || (!toggle && !move)) return;
    event.preventDefault();
    const at = host.at();
    if (toggle) {
      host.put(at, !host.has(at));
      return host.done();
    }
    const to = host.step(at, move);
    if (to === null) return;
    if (!event.shiftKey) return host.moved(to);
    host.put(to, host.has(at)); // the next patch becomes what the previous one is
    host.done();
  }
}
