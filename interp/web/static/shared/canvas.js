// A picture cut into patches on two canvases: below, the picture and what a view paints on its patches; above, outlines.
// Subclasses bring paint(ctx, state, width, height) and paintMarks(ctx, state, width, height, accent). Never changes the state.

export const OPACITY = 0.55;

export const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

function picture(src) {
  const image = new Image();
  image.src = src;
  return image.decode().then(() => image);
}

export class PatchCanvas {
  constructor(data, base, marks) {
    this.data = data;
    this.base = base;
    this.marks = marks;
    this.images = new Map();
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

  // Subclasses draw what their view means: the tint of the patches, and the outlines above it.
  paint(_ctx, _state, _width, _height) {}
  paintMarks(_ctx, _state, _width, _height, _accent) {}

  // What is shown: the upright original, or the square that the encoder of this grid saw.
  scene(state) {
    const grid = this.data.grids[state.grid];
    if (state.view === "encoder") return { image: this.images.get(`view${state.grid}`), width: grid.view.width, height: grid.view.height };
    const { width, height } = this.data.payload.image;
    return { image: this.images.get("picture"), width, height };
  }

  // Corners of a patch in pixels of the scene.
  box(state, index) {
    const grid = this.data.grids[state.grid];
    if (state.view !== "encoder") return grid.boxes.subarray(index * 4, index * 4 + 4);
    const w = grid.view.width / grid.cols,
      h = grid.view.height / grid.rows;
    const r = Math.floor(index / grid.cols),
      c = index % grid.cols;
    return [c * w, r * h, (c + 1) * w, (r + 1) * h];
  }

  // A patch that a crop removed has no area in the picture.
  empty(state, index) {
    const [l, t, r, b] = this.box(state, index);
    return r <= l || b <= t;
  }

  // Index of the patch under a point given as fractions of the scene, or null.
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

  // The same for a pointer's event; with `nearest`, a point outside is moved to the picture's edge first.
  under(event, state, nearest = false) {
    const box = this.base.getBoundingClientRect();
    const inside = (v) => (nearest ? Math.min(0.999, Math.max(0, v)) : v);
    return this.patchAt(state, inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height));
  }

  // The next patch in the direction of an arrow key; patches with no picture under them are stepped over. Null at the edge.
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

  drawBase(state) {
    const ctx = this.base.getContext("2d");
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.paint(ctx, state, this.width, this.height);
  }

  drawMarks(state, accent) {
    const ctx = this.marks.getContext("2d");
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    ctx.clearRect(0, 0, this.width, this.height);
    this.paintMarks(ctx, state, this.width, this.height, accent);
  }

  // The picture alone; what the model did not see of it is grey.
  background(ctx, state, width, height) {
    const scene = this.scene(state);
    // The encoder's few pixels are shown as pixels: that is all it had.
    ctx.imageSmoothingEnabled = !(state.view === "encoder" && width > 1.5 * scene.image.naturalWidth);
    ctx.imageSmoothingQuality = "high";
    ctx.clearRect(0, 0, width, height);
    ctx.drawImage(scene.image, 0, 0, width, height);
    if (state.view !== "encoder") this.veilUnseen(ctx, width, height, width / scene.width, height / scene.height);
  }

  // fn(row of T, index, x, y, w, h) for every patch with a picture under it, in whole pixels, so that neighbours meet without seams.
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

  // Under a colour scale the picture loses some of its own colours, which would mix with those of the scale.
  fade(ctx, width, height) {
    ctx.save();
    ctx.globalCompositeOperation = "saturation";
    ctx.globalAlpha = 0.4;
    ctx.fillStyle = "#808080";
    ctx.fillRect(0, 0, width, height);
    ctx.restore();
  }

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

  // Outline patches from..to (one patch: from === to) in a scene of this size.
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

  // The part of the picture that a token without a place reads.
  outline(ctx, state, width, height, [l, t, r, b], colour) {
    const scene = this.scene(state);
    const sx = width / scene.width,
      sy = height / scene.height;
    for (const [style, line] of [
      ["rgba(0,0,0,.85)", 6],
      [colour, 3],
    ]) {
      ctx.strokeStyle = style;
      ctx.lineWidth = line;
      ctx.strokeRect(l * sx + 2, t * sy + 2, (r - l) * sx - 4, (b - t) * sy - 4);
    }
  }

  // What is pointed at and what is locked, both as rows of T.
  strokePlaces(ctx, state, width, height, accent) {
    for (const [row, colour] of [
      [state.shownRow, "#fff"],
      [state.hover, "#fff"],
      [state.locked, accent],
    ]) {
      const read = row === null ? null : this.data.regionOf.get(row);
      if (read) this.outline(ctx, state, width, height, read.region.box, row === state.locked ? accent : colour);
      const place = row === null ? null : this.data.place.get(row);
      if (!place || place.grid !== state.grid) continue;
      const locked = row === state.locked;
      this.stroke(ctx, state, width, height, place.index, place.index, "rgba(0,0,0,.85)", locked ? 6 : 4, 0);
      this.stroke(ctx, state, width, height, place.index, place.index, colour, locked ? 3.5 : 2, 0);
    }
  }
}
