// The lens payload as typed arrays, and all that is computed from it: words, probabilities, entropy, searches, counts. No DOM.
/** @import { LensPayload, LensReading } from "../payloads.js" */
/** @import { Look } from "../shared/text.js" */
import { decodeArray, SceneData } from "../shared/payload.js";
import { look } from "../shared/text.js";

const SCHEMA = "llava-microscope/lens-view/2";

// A stored byte q is a quantised logit, so that 0.01 % and 99.9 % both survive. q = 0 means "below what is stored".
const PROBABILITY = Float32Array.from({ length: 256 }, (_, q) => (q === 0 ? 0 : 1 / (1 + Math.exp(9 - (q / 255) * 16))));
const LARGEST = PROBABILITY[255];

/**
 * A probability with as many digits as are stored: one step of q is about 6 % of p (or of 1 - p near the top).
 * @param {number} p
 */
export function percent(p) {
  if (Number.isNaN(p)) return "not stored";
  if (p < 0.0001) return "< 0.01 %";
  if (p >= LARGEST) return "> 99.9 %";
  const digits = p >= 0.9 ? 1 : p >= 0.1 ? 0 : p >= 0.01 ? 1 : 2;
  return `${(p * 100).toFixed(digits)} %`;
}

/**
 * A cosine similarity, with as many digits as are stored.
 * @param {number} v
 */
export function similarity(v) {
  return Number.isNaN(v) ? "not stored" : v.toFixed(2).replace("-", "−");
}

/**
 * The score of a word at [layers, T], NaN where it is not stored.
 * @typedef {{ spellings: string[], values: Float32Array }} FoundWord
 */

/**
 * What one lens reads. Layers are indices into `layers`, rows are positions in the sequence, ids are indices into `vocab`; scores (`p`) are
 * probabilities or cosine similarities.
 * @extends {SceneData<LensPayload>}
 */
export class LensData extends SceneData {
  /** @param {LensPayload} payload */
  constructor(payload) {
    super(payload, SCHEMA);
    this.method = payload.method;
    this.next = payload.reads === "next";
    this.similar = payload.score !== "probability";
    this.range = payload.range;
    this.scale = payload.scale;
    const [low, high] = payload.range;
    this.steps = this.similar ? Float32Array.from({ length: 256 }, (_, q) => low + (q / 255) * (high - low)) : PROBABILITY;
    const { T } = this,
      L = payload.layers.length,
      k = payload.k;
    this.L = L;
    this.k = k;
    this.layers = payload.layers.slice();
    this.vocab = payload.vocab.slice();
    const { ids, ids_bytes } = payload;
    this.ids = ids_bytes === 4 ? decodeArray(Uint32Array, ids, L * T * k, "ids") : decodeArray(Uint16Array, ids, L * T * k, "ids");
    this.q = decodeArray(Uint8Array, payload.probs, L * T * k, "probs");
    this.entropyQ = payload.entropy ? decodeArray(Uint8Array, payload.entropy, L * T, "entropy") : null;
    this.firstAt = payload.first ? decodeArray(Uint8Array, payload.first, T, "first") : null;
    this.maxEntropy = payload.max_entropy;
    this.neighbours = payload.neighbours ? decodeArray(Uint32Array, payload.neighbours, L * T * k, "neighbours") : null;
    /** @type {Look[]} */
    this.looks = new Array(this.vocab.length);
  }

  /**
   * The same scene through another lens.
   * @param {LensReading} reading
   */
  through(reading) {
    return new LensData({ ...this.payload, ...reading });
  }

  /**
   * The index of the layer with this number, or of the nearest one that was read.
   * @param {number} number
   */
  layerAt(number) {
    const off = this.layers.map((layer) => Math.abs(layer - number));
    return off.indexOf(Math.min(...off));
  }

  /**
   * A score in words.
   * @param {number} v
   */
  figure(v) {
    return this.similar ? similarity(v) : percent(v);
  }

  /**
   * A score as a fraction of a layer's colour scale.
   * @param {number} v
   * @param {number} layer
   */
  share(v, layer) {
    const [low, high] = this.scale[layer];
    return Number.isNaN(v) ? NaN : Math.min(1, Math.max(0, (v - low) / (high - low)));
  }

  /**
   * The score at a fraction of the slider that hides patches. Squared for probabilities, so that the low end, where large models live, has room.
   * @param {number} fraction
   * @param {number} layer
   */
  threshold(fraction, layer) {
    const [low, high] = this.scale[layer];
    return fraction === 0 ? -Infinity : this.similar ? low + fraction * (high - low) : fraction ** 2;
  }

  /** @param {number} index */
  layerName(index) {
    return this.layers[index] < 0 ? "embed" : String(this.layers[index]);
  }

  /**
   * Where word j of a row at a layer is stored.
   * @param {number} layer
   * @param {number} row
   */
  at(layer, row, j = 0) {
    return (layer * this.T + row) * this.k + j;
  }

  /**
   * @param {number} layer
   * @param {number} row
   */
  id(layer, row, j = 0) {
    return this.ids[this.at(layer, row, j)];
  }

  /**
   * @param {number} layer
   * @param {number} row
   */
  p(layer, row, j = 0) {
    return this.steps[this.q[this.at(layer, row, j)]];
  }

  /**
   * In nats; 0 for a lens without entropy.
   * @param {number} layer
   * @param {number} row
   */
  entropy(layer, row) {
    return this.entropyQ ? (this.entropyQ[layer * this.T + row] / 255) * this.maxEntropy : 0;
  }

  /**
   * Where the words of a place were read, for the contextual lens.
   * @param {number} layer
   * @param {number} row
   */
  contexts(layer, row) {
    const { neighbours } = this;
    return neighbours ? Array.from({ length: this.k }, (_, j) => this.payload.contexts[neighbours[this.at(layer, row, j)]]) : [];
  }

  /** @param {number} id */
  look(id) {
    this.looks[id] ??= look(this.vocab[id]);
    return this.looks[id];
  }

  /**
   * @param {number} layer
   * @param {number} row
   */
  words(layer, row) {
    return Array.from({ length: this.k }, (_, j) => ({ id: this.id(layer, row, j), p: this.p(layer, row, j) }));
  }

  /**
   * Score of one word over the layers; NaN where it is not among the stored top k.
   * @param {number} row
   * @param {number} id
   */
  curve(row, id) {
    return Float32Array.from({ length: this.L }, (_, layer) => {
      for (let j = 0; j < this.k; j++) if (this.id(layer, row, j) === id) return this.p(layer, row, j);
      return NaN;
    });
  }

  /**
   * The same at [layers, T] for a typed word: the sum over its spellings, or the most similar one. Null when no stored word spells it.
   * @param {string} word
   * @returns {FoundWord | null}
   */
  search(word) {
    const wanted = word.trim().toLowerCase();
    /** @type {Set<number>} */
    const hits = new Set();
    this.vocab.forEach((text, id) => {
      if (text.trim().toLowerCase() === wanted) hits.add(id);
    });
    if (!wanted || !hits.size) return null;
    const values = new Float32Array(this.L * this.T).fill(NaN);
    for (let i = 0; i < this.ids.length; i++) {
      if (!hits.has(this.ids[i])) continue;
      const cell = Math.floor(i / this.k);
      const score = this.steps[this.q[i]];
      if (Number.isNaN(values[cell])) values[cell] = score;
      else values[cell] = this.similar ? Math.max(values[cell], score) : values[cell] + score;
    }
    return { spellings: [...hits].map((id) => this.vocab[id]), values };
  }

  /**
   * The server's answer to a search: quantised bytes, as in `probs`, with a range of their own.
   * @param {{ spellings: string[], values: string, range: number[] }} answer
   * @returns {FoundWord}
   */
  found(answer) {
    const q = decodeArray(Uint8Array, answer.values, this.L * this.T, "found word");
    const [low, high] = answer.range;
    const value = (/** @type {number} */ v) => (this.similar ? low + (v / 255) * (high - low) : PROBABILITY[v]);
    return { spellings: answer.spellings, values: Float32Array.from(q, value) };
  }

  /**
   * Rows of a grid's patches, or of all image tokens when none has a patch.
   * @param {number} grid
   */
  imageRows(grid) {
    return this.regions.length ? [...this.regionOf.keys()] : this.grids[grid].positions;
  }

  /**
   * [id, how many patches have it on top], most frequent first.
   * @param {number} layer
   * @param {number} grid
   */
  frequent(layer, grid) {
    /** @type {Map<number, number>} */
    const counts = new Map();
    for (const row of this.imageRows(grid)) {
      const id = this.id(layer, row);
      counts.set(id, (counts.get(id) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  }

  /**
   * Whether a patch says nothing: its top word is blank or punctuation, or its score is below the threshold.
   * @param {number} layer
   * @param {number} row
   * @param {number} min
   */
  silent(layer, row, min) {
    return this.p(layer, row) < min || this.look(this.id(layer, row)).dim;
  }

  /**
   * The row to show first: the most certain one that says a word.
   * @param {number} layer
   * @param {number} grid
   */
  strongest(layer, grid) {
    const rows = this.imageRows(grid);
    let best = rows[0],
      score = -Infinity;
    for (const row of rows) {
      const p = this.silent(layer, row, -Infinity) ? -1 : this.p(layer, row);
      if (p > score) {
        best = row;
        score = p;
      }
    }
    return best;
  }
}
