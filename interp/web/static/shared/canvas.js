// A picture cut into patches on two canvases: the lower one has the picture and what a view paints on its patches, the upper one the outlines.
// It never changes the state of the view.
/** @import { Picture } from "../payloads.js" */
/** @import { Patches } from "./payload.js" */

/**
 * What is drawn: the payload's picture and its grids.
 * @typedef {Patches & { payload: { image: Picture, seen: number[] } }} PictureData
 *
 * What the picture reads of a view's state; `view` is "picture" or "encoder", rows are positions. Subclasses read more.
 * @typedef {{
 *   grid: number,
 *   view: string,
 *   shownRow?: number | null,
 *   hover?: number | null,
 *   locked?: number | null,
 *   [own: string]: any,
 * }} PictureState
 */

export const OPACITY = 0.55;

/** @type {Record<string, number[]>} how an arrow key moves over the patches: down and right */
export const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
export const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

/** @param {string} src */
function picture(src) {
  const image = new Image();
  image.src = src;
  return image.decode().then(() => image);
}

/** @template {PictureData} D */
export class PatchCanvas {
  /**
   * @param {D} data
   * @param {HTMLCanvasElement} base
   * @param {HTMLCanvasElement} marks
   */
  constructor(data, base, marks) {
    this.data = data;
    this.base = base;
    this.marks = marks;
    /** @type {Map<string, HTMLImageElement>} */
    this.images = new Map();
    this.width = this.height = this.ratio = 1;
  }

  async load() {
    const { image } = this.data.payload;
    this.images.set("picture", await picture(image.src));
    await Promise.all(
      this.data.grids.map(async (grid, g) => {
        if (grid.view) this.images.set(`view${g}`, await picture(grid.view.src));
      }),
    );
  }

  /**
   * The tint of the patches; subclasses draw it.
   * @param {CanvasRenderingContext2D} _ctx
   * @param {any} _state
   * @param {number} _width
   * @param {number} _height
   */
  paint(_ctx, _state, _width, _height) {}

  /**
   * The outlines; subclasses may draw more.
   * @param {CanvasRenderingContext2D} ctx
   * @param {any} state
   * @param {number} width
   * @param {number} height
   * @param {string} accent
   */
  paintMarks(ctx, state, width, height, accent) {
    this.strokePlaces(ctx, state, width, height, accent);
  }

  /**
   * The faint edge of a patch, unless it is small.
   * @param {CanvasRenderingContext2D} ctx
   * @param {number} x
   * @param {number} y
   * @param {number} w
   * @param {number} h
   */
  edge(ctx, x, y, w, h, colour = "rgba(255,255,255,.16)", least = 20) {
    if (w <= least) return;
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1;
    ctx.strokeRect(x - 0.5, y - 0.5, w, h);
  }

  /**
   * What is shown: the upright original, or what the encoder of this grid saw.
   * @param {PictureState} state
   * @returns {{ image: HTMLImageElement, width: number, height: number }}
   */
  scene(state) {
    const { view } = this.data.grids[state.grid];
    const [key, { width, height }] = state.view === "encoder" && view ? [`view${state.grid}`, view] : ["picture", this.data.payload.image];
    return { image: /** @type {HTMLImageElement} */ (this.images.get(key)), width, height };
  }

  /**
   * Left, top, right and bottom of a patch in pixels of the scene.
   * @param {PictureState} state
   * @param {number} index
   */
  box(state, index) {
    const grid = this.data.grids[state.grid];
    if (state.view !== "encoder" || !grid.view) return grid.boxes.subarray(index * 4, index * 4 + 4);
    const w = grid.view.width / grid.cols,
      h = grid.view.height / grid.rows;
    const r = Math.floor(index / grid.cols),
      c = index % grid.cols;
    return [c * w, r * h, (c + 1) * w, (r + 1) * h];
  }

  /**
   * Whether a crop removed the patch, so that it has no area in the picture.
   * @param {PictureState} state
   * @param {number} index
   */
  empty(state, index) {
    const [l, t, r, b] = this.box(state, index);
    return r <= l || b <= t;
  }

  /**
   * Index of the patch under a point given as fractions of the scene, or null.
   * @param {PictureState} state
   * @param {number} fx
   * @param {number} fy
   */
  patchAt(state, fx, fy) {
    const { width, height } = this.scene(state);
    const grid = this.data.grids[state.grid];
    const x = fx * width,
      y = fy * height;
    for (let i = 0; i < grid.rows * grid.cols; i++) {
      const [l, t, r, b] = this.box(state, i);
      if (x >= l && x < r && y >= t && y < b) return i;
    }
    return null;
  }

  /**
   * The same for a pointer event; with `nearest`, a point outside is moved to the edge of the picture first.
   * @param {{ clientX: number, clientY: number }} event
   * @param {PictureState} state
   */
  under(event, state, nearest = false) {
    const box = this.base.getBoundingClientRect();
    const inside = (/** @type {number} */ v) => (nearest ? Math.min(0.999, Math.max(0, v)) : v);
    return this.patchAt(state, inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height));
  }

  /**
   * The next patch in the direction of an arrow key, or null at the edge. Patches that a crop removed are skipped.
   * @param {PictureState} state
   * @param {number} from
   * @param {number[]} direction rows down, columns right
   */
  step(state, from, [down, right]) {
    const grid = this.data.grids[state.grid];
    let r = Math.floor(from / grid.cols),
      c = from % grid.cols;
    do {
      r += down;
      c += right;
      if (r < 0 || c < 0 || r >= grid.rows || c >= grid.cols) return null;
    } while (this.empty(state, r * grid.cols + c));
    return r * grid.cols + c;
  }

  /**
   * Size both canvases to fit the room.
   * @param {number} width
   * @param {number} maxHeight
   * @param {PictureState} state
   * @param {number} ratio device pixels per CSS pixel
   */
  fit(width, maxHeight, state, ratio) {
    const scene = this.scene(state);
    const scale = Math.min(width / scene.width, maxHeight / scene.height);
    const w = Math.max(1, Math.round(scene.width * scale)),
      h = Math.max(1, Math.round(scene.height * scale));
    for (const canvas of [this.base, this.marks]) {
      canvas.style.width = `${w}px`;
      canvas.style.height = `${h}px`;
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    this.width = w;
    this.height = h;
    this.ratio = ratio;
  }

  /** @param {PictureState} state */
  drawBase(state) {
    const ctx = context(this.base);
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.paint(ctx, state, this.width, this.height);
  }

  /**
   * @param {PictureState} state
   * @param {string} accent
   */
  drawMarks(state, accent = "#fff") {
    const ctx = context(this.marks);
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    ctx.clearRect(0, 0, this.width, this.height);
    this.paintMarks(ctx, state, this.width, this.height, accent);
  }

  /**
   * The picture alone; what the model did not see of it is grey.
   * @param {CanvasRenderingContext2D} ctx
   * @param {PictureState} state
   * @param {number} width
   * @param {number} height
   */
  background(ctx, state, width, height) {
    const scene = this.scene(state);
    // The few pixels of the encoder are not smoothed: they are all it had.
    ctx.imageSmoothingEnabled = !(state.view === "encoder" && width > 1.5 * scene.image.naturalWidth);
    ctx.imageSmoothingQuality = "high";
    ctx.clearRect(0, 0, width, height);
    ctx.drawImage(scene.image, 0, 0, width, height);
    if (state.view !== "encoder") this.veilUnseen(ctx, width, height, width / scene.width, height / scene.height);
  }

  /**
   * Call `fn` for every patch with a picture under it, in whole pixels so that neighbours meet without seams.
   * @param {PictureState} state
   * @param {number} width
   * @param {number} height
   * @param {(row: number, index: number, x: number, y: number, w: number, h: number) => void} fn
   */
  each(state, width, height, fn) {
    const scene = this.scene(state);
    const sx = width / scene.width,
      sy = height / scene.height;
    this.data.grids[state.grid].positions.forEach((row, i) => {
      if (this.empty(state, i)) return;
      const [l, t, r, b] = this.box(state, i);
      const x = Math.round(l * sx),
        y = Math.round(t * sy);
      fn(row, i, x, y, Math.round(r * sx) - x, Math.round(b * sy) - y);
    });
  }

  /**
   * Take some colour out of the picture, so that it does not mix with a colour scale.
   * @param {CanvasRenderingContext2D} ctx
   * @param {number} width
   * @param {number} height
   */
  fade(ctx, width, height) {
    ctx.save();
    ctx.globalCompositeOperation = "saturation";
    ctx.globalAlpha = 0.4;
    ctx.fillStyle = "#808080";
    ctx.fillRect(0, 0, width, height);
    ctx.restore();
  }

  /**
   * Grey out what the model did not see.
   * @param {CanvasRenderingContext2D} ctx
   * @param {number} width
   * @param {number} height
   * @param {number} sx
   * @param {number} sy
   */
  veilUnseen(ctx, width, height, sx, sy) {
    const [l, t, r, b] = this.data.payload.seen;
    ctx.save();
    ctx.beginPath();
    ctx.rect(0, 0, width, height);
    ctx.rect(l * sx, t * sy, (r - l) * sx, (b - t) * sy);
    ctx.clip("evenodd");
    ctx.globalCompositeOperation = "saturation";
    ctx.fillStyle = "#808080";
    ctx.fillRect(0, 0, width, height);
    ctx.globalCompositeOperation = "source-over";
    ctx.fillStyle = "rgba(120,124,132,.72)";
    ctx.fillRect(0, 0, width, height);
    ctx.restore();
  }

  /**
   * Outline the patches `from` to `to` (the same for one patch).
   * @param {CanvasRenderingContext2D} ctx
   * @param {PictureState} state
   * @param {number} width
   * @param {number} height
   * @param {number} from
   * @param {number} to
   * @param {string} colour
   * @param {number} line
   * @param {number} inset
   */
  stroke(ctx, state, width, height, from, to, colour, line, inset) {
    const scene = this.scene(state);
    const sx = width / scene.width,
      sy = height / scene.height;
    const [l, t] = this.box(state, from),
      [, , r, b] = this.box(state, to);
    if (r <= l || b <= t) return;
    ctx.strokeStyle = colour;
    ctx.lineWidth = line;
    ctx.strokeRect(l * sx + inset, t * sy + inset, (r - l) * sx - 2 * inset, (b - t) * sy - 2 * inset);
  }

  /**
   * Outline the part of the picture that a token without a patch reads.
   * @param {CanvasRenderingContext2D} ctx
   * @param {PictureState} state
   * @param {number} width
   * @param {number} height
   * @param {number[]} box
   * @param {string} colour
   */
  outline(ctx, state, width, height, [l, t, r, b], colour) {
    const scene = this.scene(state);
    const sx = width / scene.width,
      sy = height / scene.height;
    for (const [style, line] of /** @type {const} */ ([
      ["rgba(0,0,0,.85)", 6],
      [colour, 3],
    ])) {
      ctx.strokeStyle = style;
      ctx.lineWidth = line;
      ctx.strokeRect(l * sx + 2, t * sy + 2, (r - l) * sx - 4, (b - t) * sy - 4);
    }
  }

  /**
   * Outline the position under the pointer and the locked one.
   * @param {CanvasRenderingContext2D} ctx
   * @param {PictureState} state
   * @param {number} width
   * @param {number} height
   * @param {string} accent
   */
  strokePlaces(ctx, state, width, height, accent) {
    for (const [row, colour] of /** @type {const} */ ([
      [state.shownRow, "#fff"],
      [state.hover, "#fff"],
      [state.locked, accent],
    ])) {
      if (row === null || row === undefined) continue;
      const read = this.data.regionOf.get(row);
      if (read) this.outline(ctx, state, width, height, read.region.box, row === state.locked ? accent : colour);
      const place = this.data.place.get(row);
      if (!place || place.grid !== state.grid) continue;
      const locked = row === state.locked;
      this.stroke(ctx, state, width, height, place.index, place.index, "rgba(0,0,0,.85)", locked ? 6 : 4, 0);
      this.stroke(ctx, state, width, height, place.index, place.index, colour, locked ? 3.5 : 2, 0);
    }
  }
}

/** @param {HTMLCanvasElement} canvas */
function context(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}
