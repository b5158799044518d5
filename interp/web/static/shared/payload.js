// What all payloads have in common, decoded: typed arrays from base64, patches, the runs of tokens. No DOM.

export const KINDS = { i: "image", s: "separator", p: "prompt", a: "answer", x: "special" };

export function decodeBytes(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

export function decodeArray(Type, text, length, name) {
  const data = decodeBytes(text);
  if (data.length !== length * Type.BYTES_PER_ELEMENT) {
    throw new Error(`The data of this view is damaged: ${name} has ${data.length} bytes, not ${length * Type.BYTES_PER_ELEMENT}.`);
  }
  return new Type(data.buffer);
}

// Refused by name, so that a view never half-draws what it does not read.
export function requireSchema(payload, schema) {
  if (!payload || payload.schema !== schema)
    throw new Error(`This view reads ${schema}; it was given ${payload?.schema || "something else"}.`);
}

const NO_GRID = { name: "no patches", rows: 0, cols: 0, view: null, positions: new Uint16Array(0), boxes: new Float32Array(0) };

// The grids with their arrays, and where each row of T lies: {grids, place: row -> {grid, index}, finest: the grid to begin with}.
// Tokens of a perceiver have no place but a region: {regions, regionOf: row -> {region, index}}. Without any grid there is one of no patches.
export function decodePatches(payload) {
  const place = new Map();
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

// All tokens in order: {from, to, count} for a run of patches with their separators, {row} for any other. A token without a place stands for
// itself, for it cannot be reached on the picture. The last token was never read.
export function tokenRuns({ kinds, T, regionOf }) {
  const list = [];
  for (let row = 0; row < T; row++) {
    const patch = kinds[row] === "i" && !regionOf.has(row);
    const last = list[list.length - 1];
    if (!patch && kinds[row] !== "s") list.push({ row });
    else if (last && last.to === row - 1) {
      last.to = row;
      last.count += +patch;
    } else list.push({ from: row, to: row, count: +patch });
  }
  const alone = ({ from, to }) => Array.from({ length: to - from + 1 }, (_, i) => ({ row: from + i }));
  return list.flatMap((run) => (run.count === 0 ? alone(run) : [run])); // separators between tokens without a place
}

// Heading of a row of T: which patch or which token it is.
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
