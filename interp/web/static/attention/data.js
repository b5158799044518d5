// The attention payload as typed arrays, and the maps that need no server: attention of any heads, plain or weighted by what they move. No DOM.
/** @import { AttentionPayload, MapItem, MapSpec, MapValues, Score } from "../payloads.js" */
import { decodeArray, decodeBytes, SceneData } from "../shared/payload.js";

const SCHEMA = "llava-microscope/attention-view/1";

export const SHARES = /** @type {const} */ (["image", "prompt", "answer", "sinks"]);

/**
 * A map over the image tokens: `values` in the order of `keys`; `note` says what it does not show.
 * @typedef {{ values: Float32Array, note: string }} WordMap
 */

/**
 * A name for a map, under which it is kept.
 * @param {MapSpec} spec
 */
export function mapKey({ method, token, layer, head, over, sinks }) {
  return [method, token, layer ?? "all", head ?? "all", over, sinks].join(" ");
}

/**
 * A `MapSpec` names a layer of the model; elsewhere layers are indices into `layers`. Tokens are numbers in the answer, columns indices into `keys`.
 * @extends {SceneData<AttentionPayload>}
 */
export class AttentionData extends SceneData {
  /** @param {AttentionPayload} payload */
  constructor(payload) {
    super(payload, SCHEMA);
    this.start = payload.start;
    this.words = this.tokens.slice(this.start);
    this.layers = payload.layers.slice();
    const L = this.layers.length,
      H = payload.heads,
      Q = this.words.length;
    this.L = L;
    this.H = H;
    this.Q = Q;
    if (!Q) throw new Error("The data of this view is damaged: the answer has no tokens.");
    this.K = decodeBytes(payload.keys).length / 2;
    const K = this.K;
    this.keys = decodeArray(Uint16Array, payload.keys, K, "keys");
    /** @type {Map<number, number>} position → column */
    this.column = new Map();
    for (const [k, row] of this.keys.entries()) this.column.set(row, k);
    this.RL = payload.row_layers;
    this.RH = payload.row_heads;
    const cells = this.RL * this.RH;
    this.rows = decodeArray(Uint8Array, payload.rows, cells * Q * K, "rows");
    this.rowScale = decodeArray(Float32Array, payload.row_scale, cells * Q, "row_scale");
    this.norms = payload.norms ? decodeArray(Uint8Array, payload.norms, L * H * K, "norms") : null;
    this.normScale = payload.norms ? decodeArray(Float32Array, payload.norm_scale, L * H, "norm_scale") : null;
    this.shareQ = decodeArray(Uint8Array, payload.shares, SHARES.length * L * H * Q, "shares");
    this.curveOf = decodeArray(Float32Array, payload.curves, SHARES.length * L * Q, "curves");
    this.sinks = new Set([...payload.sinks.tower, ...payload.sinks.decoder]);
    /** The token that ends the answer, -1 if it was cut. */
    this.end = payload.finished ? Q - 1 : -1;
    this.methods = new Map(payload.methods.map((method) => [method.key, method]));
    /** @type {Map<string, WordMap>} maps of the server, by `mapKey` */
    this.known = new Map();
    /** @type {Map<string, Score>} */
    this.scores = new Map();
    for (const item of payload.maps) this.keep(item);
  }

  /** @param {MapItem} item */
  keep({ spec, map, score }) {
    this.learn(spec, map);
    if (score) this.scores.set(mapKey(spec), score);
  }

  /**
   * Keep a map that the server made.
   * @param {MapSpec} spec
   * @param {MapValues} map
   */
  learn(spec, { values, note }) {
    this.known.set(mapKey(spec), { values: decodeArray(Float32Array, values, this.K, "a map"), note });
  }

  /**
   * The map, if it is here or can be made here; else null, and the server must be asked.
   * @param {MapSpec} spec
   * @returns {WordMap | null}
   */
  map(spec) {
    const known = this.known.get(mapKey(spec));
    if (known) return known;
    const method = this.methods.get(spec.method);
    if (!method?.heads) return null;
    const values = this.attention(spec);
    if (!values) return null;
    if (!spec.sinks) for (const row of this.sinks) if (this.column.has(row)) values[/** @type {number} */ (this.column.get(row))] = 0;
    return { values, note: method.note };
  }

  /**
   * Attention of one head, of a layer or of all, or null where the rows are not here.
   * @param {MapSpec} spec
   */
  attention({ method, token, layer: named, head, over }) {
    const { RL, RH, L, H, K, Q, rows, rowScale, norms, normScale } = this;
    const layer = named === null ? null : this.layers.indexOf(named);
    const weighted = method === "value_weighted";
    const complete = RL === L && RH === H;
    if ((weighted || over === "max") && !complete) return null;
    if ((layer !== null && RL !== L) || (head !== null && RH !== H)) return null;
    const out = new Float32Array(K);
    let count = 0;
    for (let l = layer ?? 0; l <= (layer ?? RL - 1); l++) {
      for (let h = head ?? 0; h <= (head ?? RH - 1); h++) {
        count++;
        const cell = (l * RH + h) * Q + token;
        const from = cell * K,
          unit = (rowScale[cell] / 255) * (weighted && normScale ? normScale[l * H + h] / 255 : 1);
        for (let k = 0; k < K; k++) {
          const w = rows[from + k] * unit * (weighted && norms ? norms[(l * H + h) * K + k] : 1);
          if (over === "max") out[k] = Math.max(out[k], w);
          else out[k] += w;
        }
      }
    }
    if (over !== "max") for (let k = 0; k < K; k++) out[k] /= count;
    return out;
  }

  /**
   * How much each token of the answer reads one image token, over all heads of a layer, or of all.
   * @param {number} row
   * @param {number | null} [layer]
   * @param {number | null} [head]
   */
  readers(row, layer = null, head = null) {
    const { RL, RH, K, Q } = this;
    const k = this.column.get(row);
    const out = new Float32Array(Q);
    if (k === undefined) return out;
    const layers = layer === null || RL === 1 ? [...Array(RL).keys()] : [layer];
    const heads = head === null || RH === 1 ? [...Array(RH).keys()] : [head];
    for (const l of layers) {
      for (const h of heads) {
        for (let q = 0; q < Q; q++) {
          const cell = (l * RH + h) * Q + q;
          out[q] += (this.rows[cell * K + k] * this.rowScale[cell]) / 255 / (layers.length * heads.length);
        }
      }
    }
    return out;
  }

  /**
   * The share of a head's attention that a kind of token gets.
   * @param {number} kind index into SHARES
   * @param {number} layer
   * @param {number} head
   * @param {number} token
   */
  share(kind, layer, head, token) {
    const { L, H, Q } = this;
    return (this.shareQ[((kind * L + layer) * H + head) * Q + token] / 255) ** 2;
  }

  /**
   * The same over the layers, mean over heads.
   * @param {number} kind
   * @param {number} token
   */
  curve(kind, token) {
    const { L, Q } = this;
    return Float32Array.from({ length: L }, (_, l) => this.curveOf[(kind * L + l) * Q + token]);
  }

  /** @param {number} layer */
  layerName(layer) {
    return String(this.layers[layer]);
  }
}
