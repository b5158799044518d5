// What is written around the picture: numbers next to the sliders, the colour scale, alternative texts, frequent words.
// It never changes the state.

import { OPACITY } from "../shared/canvas.js";
import { OUTLINES } from "../shared/colours.js";
import { el, tokenElement } from "../shared/elements.js";
import { amount } from "../shared/text.js";

const LEGEND = 12; // words in the legend

// Numbers next to the sliders, the colour scale, the alternative text.
export function drawBar(part, data, state) {
  const { shownLayer, colour, found, map } = state;
  const rows = data.grids[state.grid].positions;
  part.layerOut.textContent = `${data.layerName(shownLayer)} of ${data.layerName(data.L - 1)}${state.preview === null ? "" : " (preview)"}`;
  part.layer.setAttribute("aria-valuetext", data.layerName(state.layer));
  const hiding = state.hide > 0;
  part.minOut.textContent = hiding ? data.figure(state.min) : "off";
  part.min.setAttribute("aria-valuetext", part.minOut.textContent);
  part.colour.querySelector("[value=found]").disabled = !found;
  part.scale.classList.toggle("view-off", map ? !map.top : state.mask || colour === "none");
  const ends = {
    entropy: ["0 nats, certain", `${data.maxEntropy.toFixed(1)} nats, uniform`],
    found: found ? [data.figure(found.low), `${data.figure(found.top)}, the highest at any layer`] : ["", ""],
  };
  const [low, high] = data.scale[shownLayer];
  const ofTop = data.similar ? [`≤ ${data.figure(low)}`, `≥ ${data.figure(high)} top word`] : ["0 %", "100 % top word"];
  [part.scaleLow.textContent, part.scaleHigh.textContent] = map ? ["0", map.top ? amount(map.top) : ""] : ends[colour] || ofTop;
  part.ramp.style.opacity = OPACITY + 0.2;
  const silent = rows.filter((row) => data.silent(shownLayer, row, state.min)).length;
  const below = rows.filter((row) => data.p(shownLayer, row) < state.min).length;
  part.pictureNote.textContent = data.regions.length
    ? "The image tokens of this model have no patches of their own: each reads the whole picture or a quarter of it. They are listed in the table below."
    : map
      ? ""
      : state.mask
        ? `Black: ${silent} of ${rows.length} patches, blank or punctuation${hiding ? " or below the threshold" : ""}.`
        : hiding && colour !== "found"
          ? `Dimmed: ${below} of ${rows.length} patches below ${data.figure(state.min)}.`
          : "";
  const common = data
    .frequent(shownLayer, state.grid)
    .slice(0, 3)
    .map(([id, n]) => `${data.look(id).text} ${n}`)
    .join(", ");
  part.base.setAttribute(
    "aria-label",
    `The picture with ${data.grids[state.grid].rows} by ${data.grids[state.grid].cols} patches at layer ${data.layerName(shownLayer)}; most frequent top words: ${common}`,
  );
  part.stage.setAttribute("aria-label", "Patches of the picture. Arrow keys move, Enter locks, Escape unlocks.");
}

// Of the chosen layer, not a previewed one: more or fewer words would move the table under the pointer.
export function drawLegend(part, data, state) {
  const all = data.frequent(state.layer, state.grid);
  const counts = new Map(all);
  const shown = all.slice(0, LEGEND);
  for (const id of state.outlined) if (!shown.some(([x]) => x === id)) shown.push([id, counts.get(id) || 0]);
  part.legendKey.textContent = `most frequent at layer ${data.layerName(state.layer)}`;
  const focused = part.legend.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement).dataset.id : null;
  part.legend.replaceChildren(
    ...shown.map(([id, count]) => {
      const button = el("button");
      const slot = state.outlined.indexOf(id);
      button.type = "button";
      button.dataset.id = id;
      button.setAttribute("aria-pressed", String(slot >= 0));
      if (slot >= 0) button.style.setProperty("--mark", OUTLINES[slot % OUTLINES.length]);
      button.append(tokenElement(data.look(id)), el("small", "", String(count)));
      return button;
    }),
  );
  // The buttons are new; the focus stays where it was.
  if (focused !== null) part.legend.querySelector(`[data-id="${focused}"]`)?.focus({ preventScroll: true });
}

// A button to the layer where this lens reads best, on any other layer.
export function drawBest(part, data, state) {
  const { best } = data.payload;
  part.best.hidden = best === null || best === state.layer;
  if (best !== null) part.best.textContent = `Best read at layer ${data.layerName(best)}`;
}

// What a picture file says below the picture, and its name. `word`: that of the activation map.
export function caption(data, state, lens, word) {
  const { map, colour, found, mask } = state;
  const layer = data.layerName(state.layer);
  const of = { entropy: "entropy", found: found?.word, none: "" }[colour] ?? `${data.payload.score} of the top word`;
  const what = map ? `${lens} of “${word}”` : [`${lens}, layer ${layer}`, of].filter(Boolean).join(": ");
  const lines = [
    [what, map || (colour !== "none" && !mask) ? "ramp" : null],
    [`${data.payload.model} · “${data.payload.prompt}”`, null],
  ];
  return { name: `${map ? `activation-map-${map.token}` : `${data.method}-lens-layer-${layer}`}.png`, lines };
}
