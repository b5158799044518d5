// Decodes what all payloads share: base64 arrays, grids of patches, runs of tokens. No DOM.
/** @import { Grid, Picture, Region, Scene } from "../payloads.js" */

/**
 * A decoded grid: the position of each patch in the sequence, and its box in pixels of the picture (four numbers a patch).
 * @typedef {{ name: string, rows: number, cols: number, view: Picture | null, positions: Uint16Array, boxes: Float32Array }} PatchGrid
 *
 * `place` finds the patch of a position, `regionOf` the region that a token without a patch reads; `finest` is the grid with most patches.
 * @typedef {{ name: string, box: number[], count: number }} TokenRegion
 * @typedef {{ region: TokenRegion, index: number }} RegionToken
 * @typedef {{ grid: number, index: number }} PatchIndex
 * @typedef {{
 *   grids: PatchGrid[],
 *   place: Map<number, PatchIndex>,
 *   regions: TokenRegion[],
 *   regionOf: Map<number, RegionToken>,
 *   finest: number,
 * }} Patches
 *
 * A single token, or a run of patches with their separators.
 * @typedef {{ row: number, from?: undefined, to?: undefined, count?: undefined }} SingleToken
 * @typedef {{ row?: undefined, from: number, to: number, count: number }} PatchRun
 *
 * @typedef {Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>} AnyArray
 */

/** @type {Record<string, string>} */
export const KINDS = { i: "image", s: "separator", p: "prompt", a: "answer", x: "special" };

/**
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function decodeBytes(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

/**
 * @template {AnyArray} A
 * @param {{ new (buffer: ArrayBuffer): A, BYTES_PER_ELEMENT: number }} Type
 * @param {string} text
 * @param {number} length
 * @param {string} name for the error
 * @returns {A}
 */
export function decodeArray(Type, text, length, name) {
  const data = decodeBytes(text);
  if (data.length !== length * Type.BYTES_PER_ELEMENT) {
    throw new Error(`The data of this view is damaged: ${name} has ${data.length} bytes, not ${length * Type.BYTES_PER_ELEMENT}.`);
  }
  return new Type(data.buffer);
}

/**
 * Refuse a payload of another schema, so that a view never half-draws what it cannot read.
 * @param {{ schema: string }} payload
 * @param {string} schema
 */
export function requireSchema(payload, schema) {
  if (!payload || payload.schema !== schema)
    throw new Error(`This view reads ${schema}; it was given ${payload?.schema || "something else"}.`);
}

/** @type {PatchGrid} */
const NO_GRID = { name: "no patches", rows: 0, cols: 0, view: null, positions: new Uint16Array(0), boxes: new Float32Array(0) };

/**
 * The grids, and where each position lies on them. Without any grid there is one of no patches. Perceiver tokens have no patch, only a region.
 * @param {{ grids: Grid[], regions?: Region[] }} payload
 * @returns {Patches}
 */
export function decodePatches(payload) {
  /** @type {Map<number, PatchIndex>} */
  const place = new Map();
  /** @type {PatchGrid[]} */
  const grids = payload.grids.map((grid, g) => {
    const n = grid.rows * grid.cols;
    const positions = decodeArray(Uint16Array, grid.positions, n, "positions");
    for (const [index, row] of positions.entries()) place.set(row, { grid: g, index });
    return {
      name: grid.name,
      rows: grid.rows,
      cols: grid.cols,
      view: grid.view,
      positions,
      boxes: decodeArray(Float32Array, grid.boxes, n * 4, "boxes"),
    };
  });
  /** @type {Map<number, RegionToken>} */
  const regionOf = new Map();
  const regions = (payload.regions || []).map(({ name, box, positions }) => {
    const rows = decodeArray(Uint16Array, positions, decodeBytes(positions).length / 2, "positions of a region");
    const region = { name, box, count: rows.length };
    for (const [index, row] of rows.entries()) regionOf.set(row, { region, index });
    return region;
  });
  const sizes = grids.map(({ rows, cols }) => rows * cols);
  if (!grids.length) grids.push(NO_GRID);
  return { grids, place, regions, regionOf, finest: Math.max(0, sizes.indexOf(Math.max(...sizes))) };
}

/**
 * What all views of a run decode. Rows are positions in the sequence; T of them entered the model, which the last token never does.
 * @template {Scene & { schema: string }} P
 */
export class SceneData {
  /**
   * Raises an error for a payload of another schema, and for damaged places.
   * @param {P} payload
   * @param {string} schema
   */
  constructor(payload, schema) {
    requireSchema(payload, schema);
    this.payload = payload;
    this.tokens = payload.tokens.text.slice();
    this.kinds = payload.tokens.kind;
    this.T = this.kinds.length - 1;
    const { grids, place, regions, regionOf, finest } = decodePatches(payload);
    this.grids = grids;
    this.place = place;
    this.regions = regions;
    this.regionOf = regionOf;
    this.finest = finest;
  }

  /**
   * Whether something that another view hands over belongs to this picture and text; if it does not say, it does.
   * @param {{ of?: { image: string, prompt: string, answer: string } }} handed
   */
  isOf({ of }) {
    const { image, prompt, answer } = this.payload;
    return !of || (of.image === image.src && of.prompt === prompt && of.answer === answer);
  }
}

/**
 * All tokens in order, with each run of patches as one entry. An image token without a patch is an entry of its own: it cannot be reached on the
 * picture. The last token never enters the model and is left out.
 * @param {{ kinds: string, T: number, regionOf: Map<number, RegionToken> }} data
 * @returns {(SingleToken | PatchRun)[]}
 */
export function tokenRuns({ kinds, T, regionOf }) {
  /** @type {(SingleToken | PatchRun)[]} */
  const list = [];
  for (let row = 0; row < T; row++) {
    const patch = kinds[row] === "i" && !regionOf.has(row);
    const last = list.at(-1);
    if (!patch && kinds[row] !== "s") list.push({ row });
    else if (last?.to === row - 1) {
      last.to = row;
      last.count += +patch;
    } else list.push({ from: row, to: row, count: +patch });
  }
  /** @type {(run: PatchRun) => SingleToken[]} */
  const alone = ({ from, to }) => Array.from({ length: to - from + 1 }, (_, i) => ({ row: from + i }));
  return list.flatMap((run) => ("from" in run && run.count === 0 ? alone(/** @type {PatchRun} */ (run)) : [run])); // separators between tokens without a patch
}

/**
 * The heading of a position: which patch or token it is.
 * @param {Patches & { kinds: string }} data
 * @param {number} row
 */
export function placeName(data, row) {
  const place = data.place.get(row);
  if (place) {
    const { cols, name } = data.grids[place.grid];
    const grid = data.grids.length > 1 ? `${name}, ` : "";
    return `${grid}row ${Math.floor(place.index / cols) + 1}, column ${(place.index % cols) + 1}`;
  }
  const read = data.regionOf.get(row);
  if (read) return `${read.region.name}, token ${read.index + 1} of ${read.region.count}`;
  return `${KINDS[data.kinds[row]] || "token"} token`;
}
