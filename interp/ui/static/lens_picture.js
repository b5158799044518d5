// The picture with its patches on two canvases: below, the picture with colours and words; above, outlines.
// Knows how to paint a state at any size (screen and PNG share the code) and which patch lies under a point.
// Knows nothing of the other parts of the page and never changes the state.
(function (Lens) {
  "use strict";
  const OPACITY = 0.55;
  // Viridis, from 0 to 1: bright means more, also without colour vision and in greyscale.
  const STOPS = [[68, 1, 84], [70, 50, 126], [54, 92, 141], [39, 127, 142], [31, 161, 135], [74, 193, 109], [160, 218, 57], [253, 231, 37]];
  // Colours of outlined words, Okabe and Ito's set without black.
  const OUTLINES = ["#ff9f1c", "#56b4e9", "#ff5d8f", "#f0e442", "#2ee6a6", "#c792ff", "#ff6b35", "#ffffff"];
  const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

  function ramp(v) {
    const x = Math.min(1, Math.max(0, v)) * (STOPS.length - 1);
    const i = Math.min(STOPS.length - 2, Math.floor(x));
    return STOPS[i].map((a, c) => Math.round(a + (STOPS[i + 1][c] - a) * (x - i)));
  }

  function picture(src) {
    const image = new Image();
    image.src = src;
    return image.decode().then(() => image);
  }

  class Picture {
    constructor(data, base, marks) {
      Object.assign(this, { data, base, marks, images: new Map(), widths: new Map() });
    }

    async load() {
      const { image } = this.data.payload;
      this.images.set("picture", await picture(image.src));
      await Promise.all(this.data.grids.map(async (grid, g) => { if (grid.view) this.images.set(`view${g}`, await picture(grid.view.src)); }));
    }

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
      const w = grid.view.width / grid.cols, h = grid.view.height / grid.rows;
      const r = Math.floor(index / grid.cols), c = index % grid.cols;
      return [c * w, r * h, (c + 1) * w, (r + 1) * h];
    }

    // Index of the patch under a point given as fractions of the scene, or null.
    patchAt(state, fx, fy) {
      const { width, height } = this.scene(state);
      const grid = this.data.grids[state.grid];
      const x = fx * width, y = fy * height;
      for (let i = 0; i < grid.rows * grid.cols; i++) {
        const [l, t, r, b] = this.box(state, i);
        if (x >= l && x < r && y >= t && y < b) return i;
      }
      return null;
    }

    fit(width, maxHeight, state, ratio) {
      const scene = this.scene(state);
      const scale = Math.min(width / scene.width, maxHeight / scene.height);
      const w = Math.max(1, Math.round(scene.width * scale)), h = Math.max(1, Math.round(scene.height * scale));
      for (const canvas of [this.base, this.marks]) {
        canvas.style.width = `${w}px`;
        canvas.style.height = `${h}px`;
        canvas.width = Math.round(w * ratio);
        canvas.height = Math.round(h * ratio);
      }
      Object.assign(this, { width: w, height: h, ratio });
    }

    // [0..1 for the ramp, or NaN for no colour] and the largest value, for the chosen colouring.
    values(state) {
      const { data } = this;
      const rows = data.grids[state.grid].positions, layer = state.shownLayer;
      if (state.colour === "entropy") return { top: data.maxEntropy, of: Float32Array.from(rows, (row) => data.entropy(layer, row)) };
      if (state.colour === "found" && state.found) return { top: state.found.top, of: Float32Array.from(rows, (row) => state.found.values[layer * data.T + row]) };
      if (state.colour === "probability") return { top: 1, of: Float32Array.from(rows, (row) => data.p(layer, row)) };
      return { top: 1, of: new Float32Array(rows.length).fill(NaN) };
    }

    drawBase(state) {
      const ctx = this.base.getContext("2d");
      ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      this.paint(ctx, state, this.width, this.height, state.mask);
    }

    paint(ctx, state, width, height, masked) {
      const scene = this.scene(state);
      const sx = width / scene.width, sy = height / scene.height;
      // The encoder's few pixels are shown as pixels: that is all it had.
      ctx.imageSmoothingEnabled = !(state.view === "encoder" && width > 1.5 * scene.image.naturalWidth);
      ctx.imageSmoothingQuality = "high";
      ctx.clearRect(0, 0, width, height);
      ctx.drawImage(scene.image, 0, 0, width, height);
      if (state.view !== "encoder") this.veilUnseen(ctx, width, height, sx, sy);
      const { of, top } = this.values(state);
      if (!masked && state.colour !== "none") this.fade(ctx, width, height);
      const grid = this.data.grids[state.grid];
      grid.positions.forEach((row, i) => {
        const [l, t, r, b] = this.box(state, i);
        if (r <= l || b <= t) return;
        // Whole device pixels, so that neighbouring patches meet without seams.
        const x = Math.round(l * sx), y = Math.round(t * sy), w = Math.round(r * sx) - x, h = Math.round(b * sy) - y;
        if (masked) {
          if (this.data.silent(state.shownLayer, row, state.min)) { ctx.fillStyle = "#000"; ctx.fillRect(x, y, w, h); }
          return;
        }
        const line = w > 14;
        // The threshold is about the top word, so a found word is shown wherever it has a probability.
        const quiet = state.colour !== "found" && this.data.p(state.shownLayer, row) < state.min;
        if (quiet) {
          ctx.fillStyle = "rgba(24,26,31,.72)";
          ctx.fillRect(x, y, w, h);
          return;
        }
        if (!Number.isNaN(of[i])) {
          const [cr, cg, cb] = ramp(of[i] / (top || 1));
          ctx.fillStyle = `rgba(${cr},${cg},${cb},${OPACITY})`;
          ctx.fillRect(x, y, w, h);
        } else if (state.colour === "found") {
          ctx.fillStyle = "rgba(24,26,31,.55)";
          ctx.fillRect(x, y, w, h);
        }
        if (line) {
          ctx.strokeStyle = state.colour === "none" ? "rgba(255,255,255,.4)" : "rgba(16,20,28,.28)";
          ctx.lineWidth = 1;
          ctx.strokeRect(x - 0.5, y - 0.5, w, h);
        }
        this.word(ctx, this.data.look(this.data.id(state.shownLayer, row)), x, y, w, h);
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

    // A word that does not fit is left out: half a word would be read as another word.
    word(ctx, look, x, y, w, h) {
      if (w < 30 || h < 14) return; // in smaller patches only the short words would fit: worse than none
      const unit = this.measure(ctx, look.text);
      const size = Math.min(13, h * 0.6, (w - 4) / unit);
      if (size < 7.5) return;
      ctx.font = `${look.dim ? 400 : 600} ${size}px ${FONT}`;
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      ctx.lineJoin = "round";
      ctx.lineWidth = Math.max(2, size / 4.5);
      ctx.strokeStyle = look.dim ? "rgba(0,0,0,.3)" : "rgba(0,0,0,.68)";
      ctx.fillStyle = look.dim ? "rgba(255,255,255,.6)" : "#fff";
      ctx.strokeText(look.text, x + w / 2, y + h / 2 + 0.5);
      ctx.fillText(look.text, x + w / 2, y + h / 2 + 0.5);
    }

    // Width of a text per pixel of font size; measured once per text.
    measure(ctx, text) {
      let unit = this.widths.get(text);
      if (unit === undefined) {
        ctx.font = `600 100px ${FONT}`;
        unit = Math.max(0.4, ctx.measureText(text).width / 100);
        this.widths.set(text, unit);
      }
      return unit;
    }

    drawMarks(state, accent) {
      const ctx = this.marks.getContext("2d");
      ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      ctx.clearRect(0, 0, this.width, this.height);
      this.paintMarks(ctx, state, this.width, this.height, accent);
    }

    paintMarks(ctx, state, width, height, accent) {
      const scene = this.scene(state);
      const sx = width / scene.width, sy = height / scene.height;
      const stroke = (index, colour, line, inset) => {
        const [l, t, r, b] = this.box(state, index);
        if (r <= l || b <= t) return;
        ctx.strokeStyle = colour;
        ctx.lineWidth = line;
        ctx.strokeRect(l * sx + inset, t * sy + inset, (r - l) * sx - 2 * inset, (b - t) * sy - 2 * inset);
      };
      this.data.grids[state.grid].positions.forEach((row, i) => {
        const slot = state.outlined.indexOf(this.data.id(state.shownLayer, row));
        if (slot < 0) return;
        stroke(i, "rgba(0,0,0,.7)", 4, 2);
        stroke(i, OUTLINES[slot % OUTLINES.length], 2, 2);
      });
      for (const [row, colour] of [[state.shownRow, "#fff"], [state.hover, "#fff"], [state.locked, accent]]) {
        const place = row === null ? null : this.data.place.get(row);
        if (!place || place.grid !== state.grid) continue;
        stroke(place.index, "rgba(0,0,0,.85)", row === state.locked ? 6 : 4, 0);
        stroke(place.index, colour, row === state.locked ? 3.5 : 2, 0);
      }
    }

    // PNG of the current view (picture, colours, words, outlines), or of the masked picture in its own pixels.
    png(state, kind, accent) {
      const scene = this.scene(state);
      const masked = kind === "mask";
      const width = masked ? scene.image.naturalWidth : Math.max(1024, this.width * 2);
      const canvas = document.createElement("canvas");
      canvas.width = width;
      canvas.height = Math.round((width * scene.height) / scene.width);
      const ctx = canvas.getContext("2d");
      const scale = masked ? 1 : canvas.width / this.width;
      ctx.setTransform(scale, 0, 0, scale, 0, 0);
      this.paint(ctx, state, canvas.width / scale, canvas.height / scale, masked || state.mask);
      if (!masked) this.paintMarks(ctx, { ...state, shownRow: null, hover: null }, canvas.width / scale, canvas.height / scale, accent);
      return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    }
  }

  Object.assign(Lens, { Picture, ramp, OUTLINES, OPACITY });
})((globalThis.LlavaLens = globalThis.LlavaLens || {}));
