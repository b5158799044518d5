// What of a picture is shown: the picture or what its encoder saw of it, and the patches of which grid.
/** @import { Patches } from "./payload.js" */
import { radios } from "./elements.js";
import { gridChoices } from "./grids.js";

/** @type {[string, string][]} */
const VIEWS = [
  ["picture", "Picture"],
  ["encoder", "As the encoder saw it"],
];

/**
 * Both switches of a view. They change `state`, and `changed` follows.
 * @param {Record<string, any>} part
 * @param {string} name what the radio buttons have in common
 * @param {Patches} data
 * @param {{ view: string, grid: number, hover: number | null }} state
 * @param {() => void} changed
 * @param {AbortSignal} signal aborts when the next payload comes
 */
export function pictureSwitches(part, name, data, state, changed, signal) {
  const views = data.grids[data.finest].view ? VIEWS : VIEWS.slice(0, 1);
  radios(part.view, name, views, state.view, (view) => {
    state.view = view;
    changed();
  });
  part.view.hidden = views.length < 2;
  gridChoices(part, data.grids);
  part.grid.value = String(state.grid);
  part.grid.addEventListener(
    "change",
    () => {
      Object.assign(state, { grid: +part.grid.value, hover: null });
      changed();
    },
    { signal },
  );
}
