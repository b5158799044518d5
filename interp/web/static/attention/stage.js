// The picture under the pointer and the keys: a patch is pointed at or locked, or, while patches are being chosen, crossed out.
import { Brush } from "../shared/brush.js";
import { MOVES } from "../shared/canvas.js";
import { placeName } from "../shared/payload.js";

export class Stage {
  // view: the view, whose state this changes; it offers `data`, `state`, `picture`, `part`, `readout`, render() and repaint()
  constructor(view, signal) {
    this.view = view;
    const { stage } = view.part;
    const on = (type, fn) => stage.addEventListener(type, fn, { signal });
    this.brush = new Brush(stage, this.drawn(), signal);
    on("pointermove", (event) => {
      if (event.pointerType !== "touch") this.point(this.under(event));
    });
    on("pointerleave", () => this.point(null));
    on("click", (event) => this.lock(this.under(event)));
    on("keydown", (event) => this.keys(event));
    for (const type of ["focus", "blur"]) on(type, () => view.render());
  }

  /** The position of a patch of the grid that is shown. */
  row(index) {
    const { data, state } = this.view;
    return data.grids[state.grid].positions[index];
  }

  under(event) {
    const { data, state, picture } = this.view;
    if (!data) return null;
    const index = picture.under(event, state);
    return index === null ? null : this.row(index);
  }

  point(row) {
    const { data, state } = this.view;
    if (!data || state.hover === row) return;
    state.hover = row;
    this.view.render();
  }

  lock(row) {
    const { data, state } = this.view;
    if (!data || row === null || state.picking) return;
    state.locked = state.locked === row ? null : row;
    state.at = data.place.get(row).index;
    this.view.render();
    this.announce();
  }

  /** Escape: stop choosing patches, or unlock. */
  leave() {
    const { state } = this.view;
    if (state.picking) this.pick(false);
    else this.lock(state.locked);
  }

  keys(event) {
    const { state, data, picture } = this.view;
    if (!data || state.picking || !data.grids[state.grid].positions.length) return;
    if ((event.key === "Enter" || event.key === " ") && state.at !== null) {
      event.preventDefault();
      return this.lock(this.row(state.at));
    }
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const to = state.at === null ? 0 : picture.step(state, state.at, move);
    if (to === null) return;
    state.at = to;
    if (state.locked !== null) state.locked = this.row(to);
    state.hover = this.row(to);
    this.view.render();
    this.announce();
  }

  announce() {
    const { view } = this;
    view.settle();
    const { shownRow } = view.state;
    if (shownRow !== null) view.part.live.textContent = `${placeName(view.data, shownRow)}: ${view.readout.readers()}`;
  }

  // Drawing on the picture, when patches are being chosen.
  drawn() {
    const { view } = this;
    return {
      on: () => Boolean(view.data && view.state.picking),
      under: (event) => view.picture.under(event, view.state),
      has: (index) => view.state.chosen.has(this.row(index)),
      put: (index, chosen) => {
        const { state } = view;
        state.at = index;
        if (chosen) state.chosen.add(this.row(index));
        else state.chosen.delete(this.row(index));
        view.repaint();
      },
      done: () => this.tell(),
      at: () => view.state.at ?? 0,
      step: (from, move) => view.picture.step(view.state, from, move),
      moved: (to) => {
        view.state.at = to;
        view.render();
        this.tell();
      },
    };
  }

  tell() {
    const { state, part, data } = this.view;
    const row = this.row(state.at ?? 0);
    part.live.textContent = `${placeName(data, row)}: ${state.chosen.has(row) ? "crossed out" : "not crossed out"}; ${state.chosen.size} in all`;
  }

  pick(on) {
    Object.assign(this.view.state, { picking: on, locked: null, hover: null });
    this.view.render();
    if (on) this.view.part.stage.focus({ preventScroll: true });
  }

  cross(rows) {
    this.view.state.chosen = new Set(rows);
    this.view.repaint();
  }

  // Cross out the patches on which the map is at least this share of its maximum.
  bright(least) {
    const { data, state } = this.view;
    const { map, top } = state;
    this.cross(map && top > 0 ? [...data.keys].filter((row, k) => data.place.has(row) && map[k] >= least * top) : []);
  }
}
