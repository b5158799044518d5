// The payload as typed arrays, and every question asked of it: words, probabilities, entropy, searches, counts.
// Schema "llava-microscope/lens-view/1". No DOM.
import { decodeArray, decodePatches, requireSchema } from "../shared/payload.js";
import { look } from "../shared/text.js";

const SCHEMA = "llava-microscope/lens-view/1";

// A stored byte q is a quantised logit, so that 0.01 % and 99.9 % both survive. q = 0 means "below what is stored".
const PROBABILITY = Float32Array.from({ length: 256 }, (_, q) => (q === 0 ? 0 : 1 / (1 + Math.exp(9 - (q / 255) * 16))));
const LARGEST = PROBABILITY[255];

// Digits follow the precision that is stored: one step of q is about 6 % of p (or of 1 - p near the top).
export function percent(p) {
  if (Number.isNaN(p)) return "not stored";
  if (p < 0.0001) return "< 0.01 %";
  if (p >= LARGEST) return "> 99.9 %";
  const digits = p >= 0.9 ? 1 : p >= 0.1 ? 0 : p >= 0.01 ? 1 : 2;
  return `${(p * 100).toFixed(digits)} %`;
}

export class LensData {
  constructor(payload) {
    requireSchema(payload, SCHEMA);
    const L = payload.layers.length,
      T = payload.tokens.kind.length - 1,
      k = payload.k;
    this.L = L;
    this.T = T;
    this.k = k;
    this.payload = payload;
    this.layers = payload.layers.slice();
    this.vocab = payload.vocab.slice();
    this.tokens = payload.tokens.text.slice();
    this.kinds = payload.tokens.kind;
    this.ids = decodeArray(payload.ids_bytes === 4 ? Uint32Array : Uint16Array, payload.ids, L * T * k, "ids");
    this.q = decodeArray(Uint8Array, payload.probs, L * T * k, "probs");
    this.entropyQ = decodeArray(Uint8Array, payload.entropy, L * T, "entropy");
    this.firstAt = decodeArray(Uint8Array, payload.first, T, "first");
    this.maxEntropy = payload.max_entropy;
    this.looks = new Array(this.vocab.length);
    const { grids, place, regions, regionOf, finest } = decodePatches(payload);
    this.grids = grids;
    this.place = place;
    this.regions = regions;
    this.regionOf = regionOf;
    this.finest = finest;
  }

  layerName(index) {
    return this.layers[index] < 0 ? "embed" : String(this.layers[index]);
  }
  at(layer, row, j = 0) {
    return (layer * this.T + row) * this.k + j;
  }
  id(layer, row, j = 0) {
    return this.ids[this.at(layer, row, j)];
  }
  p(layer, row, j = 0) {
    return PROBABILITY[this.q[this.at(layer, row, j)]];
  }
  entropy(layer, row) {
    return (this.entropyQ[layer * this.T + row] / 255) * this.maxEntropy;
  }
  look(id) {
    this.looks[id] ??= look(this.vocab[id]);
    return this.looks[id];
  }
  words(layer, row) {
    return Array.from({ length: this.k }, (_, j) => ({ id: this.id(layer, row, j), p: this.p(layer, row, j) }));
  }

  // Probability of one word over the layers; NaN where it is not among the stored top k.
  curve(row, id) {
    return Float32Array.from({ length: this.L }, (_, layer) => {
      for (let j = 0; j < this.k; j++) if (this.id(layer, row, j) === id) return this.p(layer, row, j);
      return NaN;
    });
  }

  // The same, [layers, T], summed over all spellings of a typed word; null where nothing stored spells it.
  search(word) {
    const wanted = word.trim().toLowerCase();
    const hits = new Set();
    this.vocab.forEach((text, id) => {
      if (text.trim().toLowerCase() === wanted) hits.add(id);
    });
    if (!wanted || !hits.size) return null;
    const values = new Float32Array(this.L * this.T).fill(NaN);
    for (let i = 0; i < this.ids.length; i++) {
      if (!hits.has(this.ids[i])) continue;
      const cell = Math.floor(i / this.k);
      values[cell] = (Number.isNaN(values[cell]) ? 0 : values[cell]) + PROBABILITY[this.q[i]];
    }
    return { spellings: [...hits].map((id) => this.vocab[id]), values };
  }

  // A host's answer to a search: the same quantised bytes as probs.
  found(answer) {
    const q = decodeArray(Uint8Array, answer.values, this.L * this.T, "found word");
    return { spellings: answer.spellings, values: Float32Array.from(q, (v) => PROBABILITY[v]) };
  }

  // Rows of T of a grid's patches, or of all image tokens where none has a place.
  imageRows(grid) {
    return this.regions.length ? [...this.regionOf.keys()] : this.grids[grid].positions;
  }

  // [[id, how many patches have it on top]], most frequent first.
  frequent(layer, grid) {
    const counts = new Map();
    for (const row of this.imageRows(grid)) {
      const id = this.id(layer, row);
      counts.set(id, (counts.get(id) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  }

  // True where a patch says nothing: its top word is blank or punctuation, or less likely than the threshold.
  silent(layer, row, min) {
    return this.p(layer, row) < min || this.look(this.id(layer, row)).dim;
  }

  // The patch to show before anyone points at one: the most certain that says a word.
  strongest(layer, grid) {
    const rows = this.imageRows(grid);
    let best = rows[0],
      score = -1;
    for (const row of rows) {
      const p = this.silent(layer, row, 0) ? 0 : this.p(layer, row);
      if (p > score) {
        best = row;
        score = p;
      }
    }
    return best;
  }
}
