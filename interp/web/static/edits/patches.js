// The picker of patches: the picture with its grid, on which patches are chosen by click, by drawing over several, or by keys.
// It holds one set of patches at a time and reports each finished choice by a callback.
/** @import { PictureData } from "../shared/canvas.js" */
import { Brush } from "../shared/brush.js";
import { PatchCanvas } from "../shared/canvas.js";
import { gridChoices } from "../shared/grids.js";
import { decodePatches } from "../shared/payload.js";
import { plural } from "../shared/text.js";

const WIDEST = 420; // pixels: patches of a fingertip's size, and room beside them to scroll the page by

/** @extends {PatchCanvas<PictureData>} */
class PickerPicture extends PatchCanvas {
  // state: {grid, view, chosen: set of indices, active: set of indices, cursor: index or null, colour}
  paint(ctx, state, width, height) {
    this.background(ctx, state, width, height);
    this.each(state, width, height, (_row, i, x, y, w, h) => {
      if (!state.chosen.has(i)) {
        ctx.fillStyle = "rgba(14,17,22,.62)";
        ctx.fillRect(x, y, w, h);
      }
      ctx.strokeStyle = "rgba(255,255,255,.3)";
      ctx.lineWidth = 1;
      ctx.strokeRect(x - 0.5, y - 0.5, w, h);
    });
  }

  paintMarks(ctx, state, width, height) {
    this.each(state, width, height, (_row, i, x, y, w, h) => {
      if (!state.active.has(i)) return;
      ctx.beginPath();
      ctx.arc(x + w / 2, y + h / 2, Math.max(1.5, Math.min(w, h) * 0.13), 0, 2 * Math.PI);
      ctx.fillStyle = state.colour;
      ctx.fill();
      ctx.lineWidth = 1;
      ctx.strokeStyle = "rgba(0,0,0,.8)";
      ctx.stroke();
    });
    for (const i of state.chosen) {
      this.stroke(ctx, state, width, height, i, i, "rgba(0,0,0,.85)", 3.5, 1);
      this.stroke(ctx, state, width, height, i, i, state.colour, 2, 1);
    }
    if (state.cursor === null) return;
    this.stroke(ctx, state, width, height, state.cursor, state.cursor, "rgba(0,0,0,.85)", 6, 0);
    this.stroke(ctx, state, width, height, state.cursor, state.cursor, "#fff", 3, 0);
  }
}

export class Picker {
  // on: {choose({patches, grid}), close(), signal}
  constructor(part, on) {
    this.part = part;
    this.on = on;
    this.state = null;
    const listen = (node, type, fn) => node.addEventListener(type, fn, { signal: on.signal });
    this.brush = new Brush(
      part.stage,
      {
        on: () => Boolean(this.picture && this.state),
        under: (event) => this.picture.under(event, this.state),
        has: (index) => this.state.chosen.has(index),
        put: (index, chosen) => this.put(index, chosen),
        done: () => this.done(),
        at: () => this.state.at,
        step: (from, move) => this.picture.step(this.state, from, move),
        moved: (to) => this.moved(to),
      },
      on.signal,
    );
    listen(part.stage, "focus", () => this.draw());
    listen(part.stage, "blur", () => this.draw());
    listen(part.picker, "keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        on.close();
      }
    });
    listen(part.pickActive, "click", () => {
      this.state.chosen = new Set(this.state.active);
      this.tell();
    });
    listen(part.pickNone, "click", () => {
      this.state.chosen.clear();
      this.draw();
      this.say();
    });
    listen(part.pickDone, "click", () => on.close());
    listen(part.grid, "change", () => this.show(+part.grid.value, []));
  }

  // Open inside `host` for one edit: where it acts now (`where`, and in `words`), where its feature is active, its colour.
  async open(host, scene, { where, words, active, colour }) {
    const { part } = this;
    const { width, height } = scene.image;
    const data = { payload: { seen: [0, 0, width, height], ...scene }, ...decodePatches(scene) };
    const picture = new PickerPicture(data, part.base, part.marks);
    const mine = {};
    this.opened = mine;
    this.data = data;
    this.picture = null;
    this.words = words;
    this.activePatches = active;
    this.colour = colour;
    host.append(part.picker);
    part.picker.hidden = false;
    gridChoices(part, data.grids);
    const placed = typeof where === "object" && data.grids[where.grid] ? where : { patches: [], grid: 0 };
    try {
      await picture.load();
    } catch {
      if (this.opened === mine) this.message("The picture could not be read.", true);
      return;
    }
    if (this.opened !== mine) return;
    this.picture = picture;
    this.show(placed.grid, placed.patches);
  }

  close() {
    const { part } = this;
    this.opened = null;
    this.picture = null;
    this.state = null;
    this.brush.stop();
    part.picker.hidden = true;
    part.body.append(part.picker); // out of the card, which may go away
  }

  // Show a grid with a choice of patches.
  show(grid, patches) {
    const { part, data } = this;
    const { rows, cols } = data.grids[grid];
    const inside = (pairs) => new Set(pairs.filter(([r, c]) => r < rows && c < cols).map(([r, c]) => r * cols + c));
    const chosen = inside(patches),
      active = grid === 0 ? inside(this.activePatches) : new Set();
    const first = chosen.size ? Math.min(...chosen) : active.size ? Math.min(...active) : 0;
    this.state = { grid, view: "picture", chosen, active, at: first, cursor: null };
    part.grid.value = grid;
    part.pickActive.hidden = !active.size;
    part.pickActive.textContent = `Where active (${active.size})`;
    this.draw();
    this.say();
  }

  draw(colour = this.colour) {
    const { part, picture, state } = this;
    this.colour = colour;
    if (!picture || !state) return;
    state.colour = colour;
    const room = part.picker.clientWidth;
    if (!room) return; // in a tab that is not shown; the host draws again
    state.cursor = document.activeElement === part.stage && part.stage.matches(":focus-visible") ? state.at : null;
    picture.fit(Math.min(room, WIDEST), Math.max(240, innerHeight * 0.55), state, Math.min(3, devicePixelRatio || 1));
    picture.drawBase(state);
    picture.drawMarks(state);
  }

  put(index, chosen) {
    const { state } = this;
    state.at = index;
    if (chosen) state.chosen.add(index);
    else state.chosen.delete(index);
    this.draw();
  }

  done() {
    this.tell();
    this.speak();
  }

  moved(to) {
    this.state.at = to;
    this.draw();
    this.speak();
  }

  speak() {
    const { state, part } = this;
    const { cols } = this.data.grids[state.grid];
    part.live.textContent = `row ${Math.floor(state.at / cols) + 1}, column ${(state.at % cols) + 1}: ${state.chosen.has(state.at) ? "chosen" : "not chosen"}; ${state.chosen.size} in all`;
  }

  // There is no edit of no patches: until one is chosen, the edit keeps its place.
  tell() {
    const { state } = this;
    const { cols } = this.data.grids[state.grid];
    this.draw();
    if (state.chosen.size) {
      const patches = [...state.chosen].sort((a, b) => a - b).map((i) => [Math.floor(i / cols), i % cols]);
      this.words = null;
      this.on.choose({ patches, grid: state.grid });
    }
    this.say();
  }

  say() {
    const { size } = this.state.chosen;
    const kept = this.words ? `acts ${this.words}` : "keeps the patches it had";
    this.message(
      size
        ? `${plural(size, "patch", "patches")} chosen.${this.state.active.size ? " Dots: where the feature is active." : ""}`
        : `No patch chosen: click one or draw over several. Until then the edit ${kept}.`,
      !size,
    );
  }

  message(text, bad) {
    this.part.pickNote.textContent = text;
    this.part.pickNote.classList.toggle("view-bad", bad);
  }
}
