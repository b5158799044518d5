// Small payloads for tests, written from payloads.d.ts.

export const b64 = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");

export const picture = (width, height) => ({ src: "data:,", width, height });

// A grid of 16-pixel patches whose rows of T begin at `start`.
export function grid(rows, cols, start, name = "grid") {
  const boxes = [];
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) boxes.push(16 * c, 16 * r, 16 * (c + 1), 16 * (r + 1));
  return {
    name,
    rows,
    cols,
    boxes: b64(Float32Array.from(boxes)),
    positions: b64(Uint16Array.from({ length: rows * cols }, (_, i) => start + i)),
    view: picture(cols * 10, rows * 10),
  };
}

// <s>, 2×3 patches, two words, and an answer of one word.
export function scene(fields = {}) {
  return {
    model: "emoji-llava",
    prompt: "Describe the image.",
    answer: "dog",
    finished: true,
    notes: [],
    image: picture(48, 32),
    seen: [0, 0, 48, 32],
    grids: [grid(2, 3, 1)],
    regions: [],
    tokens: { text: ["<s>", "", "", "", "", "", "", " the", " image", " dog"], kind: "xiiiiiippa" },
    ...fields,
  };
}

// Two layers, two words at each of the nine rows: `ids[layer][row]` and `probs[layer][row]`, pairs each.
export function lens(ids, probs, fields = {}) {
  return {
    ...scene(),
    schema: "llava-microscope/lens-view/2",
    run: null,
    method: "logit",
    methods: [{ key: "logit", name: "Logit lens", about: "" }],
    missing: "",
    others: [],
    locked: null,
    reads: "next",
    score: "probability",
    range: [0, 1],
    scale: [
      [0, 1],
      [0, 1],
    ],
    best: null,
    layers: [-1, 0],
    default: 1,
    why_default: "",
    k: 2,
    vocab: [" dog", " cat", "dog", ",", "Dog "],
    ids: b64(Uint16Array.from(ids.flat(2))),
    ids_bytes: 2,
    probs: b64(Uint8Array.from(probs.flat(2))),
    entropy: b64(Uint8Array.from({ length: 18 }, (_, i) => i * 15)),
    max_entropy: 5.1,
    first: b64(new Uint8Array(9)),
    contexts: [],
    neighbours: "",
    note: "",
    limits: "",
    ...fields,
  };
}

export function feature(number, at, fields = {}) {
  const rows = Object.keys(at).map(Number);
  const values = Object.values(at);
  return {
    feature: number,
    label: "",
    source: "",
    score: Math.max(0, ...values),
    mean: 0,
    max: Math.max(0, ...values),
    frequency: 0,
    density: null,
    dense: "",
    top: [],
    bottom: [],
    link: null,
    rows: b64(Uint16Array.from(rows)),
    values: b64(Float32Array.from(values)),
    ...fields,
  };
}

export function features(list, fields = {}) {
  return {
    ...scene(),
    schema: "llava-microscope/feature-view/1",
    run: "r1",
    left_out: [0],
    sae: { name: "sae", layer: 5, features: 64, notes: [], labels: "", study: null },
    quality: [],
    where: "image tokens",
    looked_at: 6,
    active: list.length,
    features: list,
    rank_by: "mean",
    limits: "",
    ...fields,
  };
}

export function chip(fields = {}) {
  return {
    sae: "sae",
    layer: 5,
    feature: 17,
    label: "dog",
    unit: "strength",
    value: 0.5,
    where: "image",
    max: 4,
    active: [[0, 1]],
    on: true,
    ...fields,
  };
}

export function edits(fields = {}) {
  const { image, seen, grids } = scene();
  return {
    schema: "llava-microscope/edits/1",
    run: null,
    model: "emoji-llava",
    scene: { image, seen, grids },
    edits: [chip()],
    swept: 0,
    presets: [],
    published: [],
    sae: { name: "sae", layer: 5, features: 64 },
    ...fields,
  };
}

export function steer(fields = {}) {
  return {
    schema: "llava-microscope/steer-view/1",
    run: null,
    state: "done",
    model: "emoji-llava",
    prompt: "Describe the image.",
    settings: { max_new_tokens: 32, temperature: 0, seed: 0 },
    notes: [],
    plain: { text: "a dog", finished: true },
    steered: { text: "a cat", finished: true },
    diff: [],
    tokens: [" a", " dog", "</s>"],
    kl: [0.1, 2.5, 0.4],
    words: [{ word: "dog", plain: [0.1, 0.9, 0], steered: [0.8, 0.2, 0] }],
    edits: [],
    sweep: null,
    ...fields,
  };
}

// Two layers (2 and 4) of two heads, an answer of two tokens, six patches. For token 0, layer 2 looks at patch 1 and layer 4's heads at patches 0 and 2.
export function attention(fields = {}) {
  const at = [
    [
      [1, 1],
      [1, 1],
    ],
    [
      [0, 1],
      [2, 1],
    ],
  ]; // [layer][head][token]: the patch with all attention
  const cells = at.flat(2);
  const bytes = cells.flatMap((patch) => Array.from({ length: 6 }, (_, k) => (k === patch ? 255 : 0)));
  const scale = cells.map((_, i) => (i % 2 ? 0.5 : 1)); // token 1 gives half to the picture
  const image = [0.25, 0.5, 0.25, 0.5, 1, 0.5, 1, 0.5]; // [layer][head][token]
  const others = Array.from({ length: 3 }, () => image.map((share) => (1 - share) / 3)).flat();
  const curve = [0.5, 0.5, 1, 0.5]; // [layer][token], as if means over heads
  return {
    schema: "llava-microscope/attention-view/1",
    run: null,
    ...scene(),
    tokens: { text: ["<s>", "", "", "", "", "", "", " image", " dog", "."], kind: "xiiiiiipaa" },
    start: 8,
    token: 0,
    method: "",
    layers: [2, 4],
    heads: 2,
    keys: b64(Uint16Array.from([1, 2, 3, 4, 5, 6])),
    row_layers: 2,
    row_heads: 2,
    rows: b64(Uint8Array.from(bytes)),
    row_scale: b64(Float32Array.from(scale)),
    norms: b64(Uint8Array.from({ length: 24 }, () => 255)),
    norm_scale: b64(Float32Array.from([1, 1, 1, 3])),
    shares: b64(Uint8Array.from([...image, ...others].map((share) => Math.round(255 * Math.sqrt(share))))),
    curves: b64(Float32Array.from([...curve, ...curve, ...curve, ...curve])),
    sinks: { tower: [], decoder: [0] },
    methods: [
      { key: "attention", name: "Attention", about: "", note: "", heads: true },
      { key: "value_weighted", name: "Value-weighted", about: "", note: "", heads: true },
      { key: "relevancy", name: "Relevancy", about: "", note: "", heads: false },
    ],
    maps: [],
    window: 1,
    quick: false,
    limits: "",
    ...fields,
  };
}

const signedRows = (at) => ({
  rows: b64(Uint16Array.from(Object.keys(at).map(Number))),
  values: b64(Float32Array.from(Object.values(at))),
});

// What a feature did: its score at each row.
export function attributed(number, at, fields = {}) {
  const score = Object.values(at).reduce((sum, v) => sum + v, 0);
  return { feature: number, label: "", source: "", dense: "", link: null, max: 1, score, exact: score, ...signedRows(at), ...fields };
}

// " dog" against " cat", as the features in the list moved it; `missed` is the score of what the SAE misses at each row.
export function attributedWord(list, missed = {}, fields = {}) {
  return {
    spec: { token: 0, baseline: "", top: 20 },
    other: " cat",
    others: [{ text: " cat", probability: 0.1 }],
    margin: 2,
    features: list,
    active: list.length + 3,
    all_features: { score: 5, exact: 4 },
    all_missed: { score: 0.5, exact: 0.4 },
    total: { score: 5.5, exact: 4.2 },
    missed: signedRows(missed),
    pearson: 0.9,
    overlap: 1,
    note: "",
    ...fields,
  };
}

export function attribution(words, fields = {}) {
  return {
    ...scene(),
    schema: "llava-microscope/attribution-view/1",
    run: "r1",
    sae: { name: "sae", layer: 5, features: 64, notes: [], labels: "", study: null },
    left_out: [0],
    start: 9,
    words,
    limits: "",
    ...fields,
  };
}

export function featureWords(number, scores, fields = {}) {
  const words = scores.map((score, token) => ({ token, other: " cat", score, ...signedRows({ 2: score }) }));
  return { feature: number, label: "dog", source: "", dense: "", link: null, max: 1, words, ...fields };
}

// A concept that has `most` in its example, whose map covers 1×2 patches.
export function conceptItem(concept, fields = {}) {
  const example = { picture: picture(32, 16), answer: "a dog.", activation: 4, rows: 1, cols: 2, map: b64(Float32Array.of(4, 1)) };
  return {
    concept,
    words: [`word${concept}`],
    opposite: [],
    size: 10 - concept,
    stability: 0.9,
    feature: null,
    activation: 2,
    places: b64(Uint16Array.of(1 + concept)),
    examples: [example],
    ...fields,
  };
}

// Concepts over the scene, whose nine rows have the codes `codes[k]`.
export function concepts(items, codes, fields = {}) {
  return {
    ...scene(),
    schema: "llava-microscope/concepts-view/1",
    run: "r1",
    dictionary: {
      name: "patches",
      method: "semi-nmf",
      objective: "",
      layer: 3,
      where: "each patch",
      states: 100,
      fit: { learned: 0.1, zero: 0.03, here: 0.2 },
      overlap: 0,
      about: "",
      notes: [],
    },
    left_out: [0],
    unit: "strength",
    concepts: items,
    codes: b64(Float32Array.from(codes.flat())),
    shift: null,
    look: null,
    limits: "",
    ...fields,
  };
}

export function shifted(concept, fields = {}) {
  return {
    concept,
    size: 5,
    relative: 0.1,
    consistency: 0.5,
    recovery: 0.25,
    cosine: 0.9,
    words: [`word${concept}`],
    after_words: ["object"],
    gained: ["object"],
    lost: [`word${concept}`],
    answers: [{ before: "a dog.", after: "an object." }],
    after: [],
    ...fields,
  };
}
