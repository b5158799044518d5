// The heads of all layers as a grid of cells, coloured by how much of their attention is on the picture. Calls host.point(layer, head) while a cell
// is pointed at (null: none), and host.choose(layer, head); the number of a row stands for all heads of its layer, so head is null there.
/** @import { AttentionData } from "./data.js" */
import { ramp } from "../shared/colours.js";

const LABEL = 30, // pixels left of the cells
  FOOT = 16, // below them
  WIDEST = 34,
  TALLEST = 22,
  LEAST = 7,
  MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class Matrix {
  constructor(part, host, signal) {
    this.part = part;
    this.host = host;
    this.cursor = [0, 0];
    const on = (type, fn) => part.matrix.addEventListener(type, fn, { signal });
    on("pointermove", (event) => {
      if (event.pointerType !== "touch") host.point(...(this.under(event) ?? [null, null]));
    });
    on("pointerleave", () => host.point(null, null));
    on("click", (event) => {
      const cell = this.under(event);
      if (cell) host.choose(...cell);
    });
    on("keydown", (event) => this.key(event));
    on("blur", () => host.point(null, null));
  }

  // [layer, head] below a pointer; head is null at the label of a row.
  under(event) {
    const { left, top } = this.part.matrix.getBoundingClientRect();
    const x = event.clientX - left - LABEL,
      y = event.clientY - top;
    const layer = Math.floor(y / this.h),
      head = Math.floor(x / this.w);
    if (layer < 0 || layer >= this.data.L || head >= this.data.H) return null;
    return [layer, head < 0 ? null : head];
  }

  key(event) {
    const { data, host } = this;
    const move = MOVES[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return host.choose(...this.cursor);
    }
    if (!move) return;
    event.preventDefault();
    const [layer, head] = this.cursor;
    const to = head === null ? -1 : head; // the label is left of head 0
    const next = Math.min(data.H - 1, Math.max(-1, to + move[1]));
    this.cursor = [Math.min(data.L - 1, Math.max(0, layer + move[0])), next < 0 ? null : next];
    host.point(...this.cursor, true);
  }

  // shown: {token, layer, head, at}: which cell is chosen and which, [layer, head], is pointed at
  /** @param {AttentionData} data */
  draw(data, shown, accent, ink) {
    const { matrix } = this.part;
    this.data = data;
    const { L, H } = data;
    const room = matrix.parentElement.clientWidth - LABEL;
    if (room <= 0) return; // in a tab that is not shown
    this.w = Math.min(WIDEST, room / H);
    this.h = Math.max(LEAST, Math.min(TALLEST, this.w, 360 / L));
    const width = LABEL + this.w * H,
      height = this.h * L + FOOT;
    const ratio = Math.min(3, devicePixelRatio || 1);
    Object.assign(matrix, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    Object.assign(matrix.style, { width: `${width}px`, height: `${height}px` });
    const ctx = matrix.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    let top = 0;
    for (let l = 0; l < L; l++) for (let h = 0; h < H; h++) top = Math.max(top, data.share(0, l, h, shown.token));
    this.top = top;
    const gap = this.w > 9 ? 1 : 0;
    const every = Math.max(1, Math.ceil(11 / this.h));
    ctx.font = "10.5px system-ui, sans-serif";
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    for (let l = 0; l < L; l++) {
      const named = shown.layer === l || shown.at?.[0] === l;
      const beside = every > 1 && [shown.layer, shown.at?.[0]].some((other) => other != null && other !== l && Math.abs(other - l) < every);
      if (named || (l % every === 0 && !beside)) {
        ctx.fillStyle = named ? ink.fg : ink.dim;
        ctx.fillText(data.layerName(l), LABEL - 6, (l + 0.5) * this.h);
      }
      for (let h = 0; h < H; h++) {
        ctx.fillStyle = `rgb(${ramp(top ? data.share(0, l, h, shown.token) / top : 0).join(",")})`;
        ctx.fillRect(LABEL + h * this.w, l * this.h, this.w - gap, this.h - gap);
      }
    }
    ctx.textAlign = "center";
    const stride = Math.max(1, Math.ceil(18 / this.w)),
      now = shown.at?.[1] ?? shown.head;
    for (let h = 0; h < H; h++) {
      if (h !== now && (h % stride || (now !== null && Math.abs(h - now) < stride))) continue;
      ctx.fillStyle = h === now ? ink.fg : ink.dim;
      ctx.fillText(String(h), LABEL + (h + 0.5) * this.w, this.h * L + FOOT / 2 + 1);
    }
    if (shown.layer !== null) this.frame(ctx, shown.layer, shown.head, accent);
    if (shown.at) this.frame(ctx, ...shown.at, ink.fg);
  }

  frame(ctx, layer, head, colour) {
    const x = LABEL + (head ?? 0) * this.w,
      w = head === null ? this.w * this.data.H : this.w;
    for (const [style, line] of [
      ["#fff", 4],
      [colour, 2],
    ]) {
      ctx.strokeStyle = style;
      ctx.lineWidth = line;
      ctx.strokeRect(x, layer * this.h, w - 1, this.h - 1);
    }
  }
}
