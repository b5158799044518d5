// Colour scales. No DOM.

// Viridis, from 0 to 1: bright means more, also without colour vision and in greyscale.
const STOPS = [
  [68, 1, 84],
  [70, 50, 126],
  [54, 92, 141],
  [39, 127, 142],
  [31, 161, 135],
  [74, 193, 109],
  [160, 218, 57],
  [253, 231, 37],
];

// Colours of outlined words and of layers, Okabe and Ito's set without black.
export const OUTLINES = ["#ff9f1c", "#56b4e9", "#ff5d8f", "#f0e442", "#2ee6a6", "#c792ff", "#ff6b35", "#ffffff"];

/** @param {number} v from 0 to 1 */
export function ramp(v) {
  const x = Math.min(1, Math.max(0, v)) * (STOPS.length - 1);
  const i = Math.min(STOPS.length - 2, Math.floor(x));
  return STOPS[i].map((a, c) => Math.round(a + (STOPS[i + 1][c] - a) * (x - i)));
}
