// Written by `python -m tests.web.typescript` from the TypedDicts in interp/web/payloads. Do not edit.

/** An image as a data URL, with the size of the original in pixels. */
export interface Picture {
  src: string;
  width: number;
  height: number;
}

/** A grid of patches. `boxes`: float32 [rows * cols, 4]; `positions`: uint16 [rows * cols]; `view`: what the encoder saw. */
export interface Grid {
  name: string;
  rows: number;
  cols: number;
  boxes: string;
  positions: string;
  view: Picture;
}

/** The part of the picture that some tokens without a patch read. `positions`: uint16. */
export interface Region {
  name: string;
  box: number[];
  positions: string;
}

/** All tokens, the last one included, which was never read. `kind`: one letter each, of i, s, p, a and x. */
export interface Tokens {
  text: string[];
  kind: string;
}

/** What every view shows of a trace. `seen`: the part of the picture that the model saw, in its pixels. */
export interface Scene {
  model: string;
  prompt: string;
  answer: string;
  finished: boolean;
  notes: string[];
  image: Picture;
  seen: number[];
  grids: Grid[];
  regions: Region[];
  tokens: Tokens;
}

/** One lens of the switch. `about`: what it reads, what it was trained on and how much it reads of this model. */
export interface LensMethod {
  key: string;
  name: string;
  about: string;
}

/** Where a word of the contextual lens was read: what stands before and after it, and the layer of the text's state. */
export interface ContextItem {
  before: string;
  word: string;
  after: string;
  layer: number;
}

/** What one lens reads. L layers, T positions (the last token was never read), k words at each. `reads`: "next" or "here", the token that the words stand for; `score`: "probability" or "cosine similarity". `vocab`: the words that occur; `ids`: uint16 or uint32 [L, T, k] into it; `probs`: uint8 [L, T, k], probabilities as quantised logits, similarities as steps of 1/255 between the two numbers of `range`. `scale`: [L, 2], the scores at the ends of each layer's colours. `entropy`: uint8 [L, T], 255 is `max_entropy` nats; "" for a lens without. `first`: uint8 [T], the index of the layer from which on the last layer's word is on top; "" for a lens that reads what stands here. `contexts`, and `neighbours`: uint32 [L, T, k] into them, for the contextual lens; else empty. `note`: what to know about it, "" for nothing. `default`: index of the layer to open at; `best`: the same if it is known to be the best for this lens, else null. */
export interface LensReading {
  method: string;
  reads: string;
  score: string;
  layers: number[];
  default: number;
  best: number | null;
  why_default: string;
  k: number;
  vocab: string[];
  ids: string;
  ids_bytes: number;
  probs: string;
  range: number[];
  scale: number[][];
  entropy: string;
  max_entropy: number;
  first: string;
  contexts: ContextItem[];
  neighbours: string;
  note: string;
  limits: string;
}

/** The view's data. `methods`: the lenses that the page offers; `missing`: how to get those that it lacks, "" if none. `others`: what other lenses read, for a file without a server; `locked`: the position to open with, null for none. */
export interface LensPayload {
  model: string;
  prompt: string;
  answer: string;
  finished: boolean;
  notes: string[];
  image: Picture;
  seen: number[];
  grids: Grid[];
  regions: Region[];
  tokens: Tokens;
  method: string;
  reads: string;
  score: string;
  layers: number[];
  default: number;
  best: number | null;
  why_default: string;
  k: number;
  vocab: string[];
  ids: string;
  ids_bytes: number;
  probs: string;
  range: number[];
  scale: number[][];
  entropy: string;
  max_entropy: number;
  first: string;
  contexts: ContextItem[];
  neighbours: string;
  note: string;
  limits: string;
  schema: string;
  run: string | null;
  methods: LensMethod[];
  missing: string;
  others: LensReading[];
  locked: number | null;
}

/** One feature. `rows`: uint16, the positions at which it is active; `values`: float32, its activation at each of them. */
export interface FeatureItem {
  feature: number;
  label: string;
  source: string;
  score: number;
  mean: number;
  max: number;
  frequency: number;
  density: number | null;
  dense: string;
  top: string[];
  bottom: string[];
  link: string | null;
  rows: string;
  values: string;
}

/** Features of some tokens: the part of the payload that another choice of tokens replaces. */
export interface FoundFeatures {
  where: string;
  looked_at: number;
  active: number;
  features: FeatureItem[];
}

/** The SAE's own figures on the data it was trained for. */
export interface OwnFit {
  explained_variance: number | null;
  l0: number | null;
}

/** How well the SAE rebuilds the tokens of one kind, "image" or "text". */
export interface Fit {
  kind: string;
  tokens: number;
  explained_variance: number | null;
  l0: number;
  active_share: number;
  trained: OwnFit | null;
  verdict: string;
}

/** The SAE. `labels`: where its labels come from; `study`: one that is open on the page and of this SAE. */
export interface Dictionary {
  name: string;
  layer: number;
  features: number;
  notes: string[];
  labels: string;
  study: string | null;
}

/** The view's data. `left_out`: positions that rankings leave out; `quality`: how well the SAE rebuilds the states. */
export interface FeaturePayload {
  model: string;
  prompt: string;
  answer: string;
  finished: boolean;
  notes: string[];
  image: Picture;
  seen: number[];
  grids: Grid[];
  regions: Region[];
  tokens: Tokens;
  where: string;
  looked_at: number;
  active: number;
  features: FeatureItem[];
  schema: string;
  run: string | null;
  left_out: number[];
  sae: Dictionary;
  quality: Fit[];
  rank_by: string;
  limits: string;
}

/** Chosen patches: [row, column] pairs of one grid. */
export interface PatchPlace {
  patches: number[][];
  grid: number;
}

/** One edit of the list. `value` is in its `unit`; `max` and `active`: its largest activation on the picture and the patches where it is active, if known. */
export interface EditItem {
  sae: string;
  layer: number | null;
  feature: number;
  label: string;
  unit: string;
  value: number;
  where: string | PatchPlace;
  max: number | null;
  active: number[][];
  on: boolean;
}

/** The picture that edits may be placed on. */
export interface EditScene {
  image: Picture;
  seen: number[];
  grids: Grid[];
}

/** Edits that are known to work, offered by name. */
export interface EditPreset {
  name: string;
  note: string;
  edits: EditItem[];
}

/** Edits published for another model, in words. */
export interface PublishedEdits {
  model: string;
  text: string;
}

/** The SAE that is searched. */
export interface EditorSae {
  name: string;
  layer: number;
  features: number;
}

/** The editor's data. `swept`: the index of the edit that a sweep varies. */
export interface EditsPayload {
  schema: string;
  run: string | null;
  model: string;
  scene: EditScene | null;
  edits: EditItem[];
  swept: number;
  presets: EditPreset[];
  published: PublishedEdits[];
  sae: EditorSae | null;
}

/** How both answers were generated. */
export interface Settings {
  max_new_tokens: number;
  temperature: number;
  seed: number;
}

/** `finished`: None while it grows. */
export interface AnswerText {
  text: string;
  finished: boolean | null;
}

/** A piece of both answers; `op`: equal, replace, delete or insert. */
export interface DiffPiece {
  op: string;
  plain: string;
  steered: string;
}

/** Probability of a word at each token of the plain answer. */
export interface WordChance {
  word: string;
  plain: number[];
  steered: number[];
}

/** The direction of an edit: a feature with its label ("" if it has none), or a vector with its name. */
export interface Direction {
  label: string;
  feature: number | null;
  sae: string | null;
  layer: number;
}

/** One edit and what it did: at how many positions it acted (`fired`), and how far it moved the states there (`absolute`, and `relative` to their length). */
export interface EditOutcome {
  label: string;
  feature: number | null;
  sae: string | null;
  layer: number;
  unit: string;
  value: number;
  where: string;
  fired: number;
  absolute: number;
  relative: number;
}

/** One value of a sweep. While it is answered, all but `value` and `answer` are None. `kl`: the mean over the answer. */
export interface SweepPoint {
  value: number;
  answer: string;
  finished: boolean | null;
  diff: DiffPiece[] | null;
  kl: number | null;
  relative: number | null;
}

/** A sweep. `state`: running, stopped or done; `others`: how many edits stay unchanged; `current`: the value of the pair shown with it. */
export interface SweepPayload {
  label: string;
  feature: number | null;
  sae: string | null;
  layer: number;
  state: string;
  unit: string;
  others: number;
  current: number | null;
  points: SweepPoint[];
}

/** The view's data. `state`: running, stopped or done; what is only known at the end is None before. */
export interface SteerPayload {
  schema: string;
  run: string | null;
  state: string;
  model: string;
  prompt: string;
  settings: Settings;
  notes: string[];
  plain: AnswerText;
  steered: AnswerText;
  diff: DiffPiece[] | null;
  tokens: string[] | null;
  kl: number[] | null;
  words: WordChance[] | null;
  edits: EditOutcome[] | null;
  sweep: SweepPayload | null;
}

/** One way to make a map. `note`: what it does not show; "" if each map brings its own. `heads`: whether layer and head can be chosen. */
export interface Method {
  key: string;
  name: string;
  about: string;
  note: string;
  heads: boolean;
}

/** Areas under a map's insertion and deletion curves, and under those of a random map. */
export interface Score {
  insertion: number;
  deletion: number;
  random_insertion: number;
  random_deletion: number;
}

/** Which map: of the token with this number in the answer. `layer` and `head`: None for all; `over`: "mean" or "max" of them. */
export interface MapSpec {
  method: string;
  token: number;
  layer: number | null;
  head: number | null;
  over: string;
  sinks: boolean;
}

/** A map. `values`: float32 [K]; `note`: what it does not show. */
export interface MapValues {
  values: string;
  note: string;
}

/** A map computed before the payload was made, and its score if there is one. */
export interface MapItem {
  spec: MapSpec;
  map: MapValues;
  score: Score | null;
}

/** Positions of registers of the vision tower and of attention sinks of the decoder. */
export interface SinkMarks {
  tower: number[];
  decoder: number[];
}

/** The view's data. L layers with attention, H heads, Q tokens of the answer, K image tokens. `start`: position of the first token of the answer; `token`: number of the one to open with; `method`: to open with, "" for the one that the view shows; `keys`: uint16 [K], positions of the image tokens. `rows`: uint8 [row_layers, row_heads, Q, K], attention in steps of 1/255 of `row_scale`, float32 [row_layers, row_heads, Q]. Where all rows would be too large, `row_heads` is 1 and the rows are means over heads, and if need be `row_layers` too. `norms`: uint8 [L, H, K], the length of what each key adds, in steps of 1/255 of `norm_scale`, float32 [L, H]; "" where rows are means. `shares`: uint8 [4, L, H, Q], the square roots of the shares of attention on image, prompt, answer and sinks in steps of 1/255; `curves`: float32 [4, L, Q], their means over heads. `quick`: whether testing a map takes seconds at most. */
export interface AttentionPayload {
  model: string;
  prompt: string;
  answer: string;
  finished: boolean;
  notes: string[];
  image: Picture;
  seen: number[];
  grids: Grid[];
  regions: Region[];
  tokens: Tokens;
  schema: string;
  run: string | null;
  start: number;
  token: number;
  method: string;
  layers: number[];
  heads: number;
  keys: string;
  row_layers: number;
  row_heads: number;
  rows: string;
  row_scale: string;
  norms: string;
  norm_scale: string;
  shares: string;
  curves: string;
  sinks: SinkMarks;
  methods: Method[];
  maps: MapItem[];
  window: number;
  quick: boolean;
  limits: string;
}

/** Which comparison. `token`: number in the answer; `baseline`: the other word, "" for the likeliest one; `top`: how many features to list. */
export interface WordSpec {
  token: number;
  baseline: string;
  top: number;
}

/** A word the model could have said there instead. */
export interface OtherWord {
  text: string;
  probability: number;
}

/** What something did for the word, in logits: to first order, and as measured by taking it away. */
export interface EffectItem {
  score: number;
  exact: number;
}

/** A score at some positions. `rows`: uint16; `values`: float32. */
export interface SignedRows {
  rows: string;
  values: string;
}

/** One feature. `max`: its highest activation on the picture, 0 for none; `exact` is None where it was not measured. */
export interface AttributedItem {
  rows: string;
  values: string;
  feature: number;
  label: string;
  source: string;
  dense: string;
  link: string | null;
  max: number;
  score: number;
  exact: number | null;
}

/** What the features did for one word. `other`: the word it is compared with; `others`: the likeliest ones there, the word itself left out. `margin`: the word's logit less that of the other; `missed`: the scores of what the SAE misses; `active`: the number of features active at the positions it could read. */
export interface WordAttribution {
  spec: WordSpec;
  other: string;
  others: OtherWord[];
  margin: number;
  features: AttributedItem[];
  active: number;
  all_features: EffectItem;
  all_missed: EffectItem;
  total: EffectItem;
  missed: SignedRows;
  pearson: number | null;
  overlap: number | null;
  note: string;
}

/** What a feature did for one token of the answer, against the likeliest other one there. */
export interface WordScore {
  rows: string;
  values: string;
  token: number;
  other: string;
  score: number;
}

/** What a feature did for every token of the answer, in order. */
export interface FeatureWords {
  feature: number;
  label: string;
  source: string;
  dense: string;
  link: string | null;
  max: number;
  words: WordScore[];
}

/** The answer without some features beside the plain one. `before` and `after`: probability of the word in both runs, after the same words. */
export interface WithoutFeatures {
  features: number[];
  plain: AnswerText;
  changed: AnswerText;
  diff: DiffPiece[];
  before: number;
  after: number;
}

/** The view's data. `start`: position of the first token of the answer; `words`: those attributed so far, the one to open with first. */
export interface AttributionPayload {
  model: string;
  prompt: string;
  answer: string;
  finished: boolean;
  notes: string[];
  image: Picture;
  seen: number[];
  grids: Grid[];
  regions: Region[];
  tokens: Tokens;
  schema: string;
  run: string | null;
  sae: Dictionary;
  left_out: number[];
  start: number;
  words: WordAttribution[];
  limits: string;
}

/** The answer without some patches beside the plain one; for each token of the plain answer, its probability in both runs, and the KL in nats. */
export interface WhatIf {
  plain: AnswerText;
  changed: AnswerText;
  diff: DiffPiece[];
  before: number[];
  after: number[];
  kl: number[];
  about: string;
}

/** The fewest patches without which a word is no longer the likeliest: positions, the word's probability with and without them. */
export interface Fewest {
  positions: number[];
  flipped: boolean;
  instead: string | null;
  before: number;
  after: number;
  tried: number;
}

/** One block of attention: what blocking it in each window changes, in per cent of the word's probability, and in log-odds. */
export interface FlowBlock {
  name: string;
  change: number[];
  log_odds: number[];
}

/** `centres`: the middle layer of each window; `window`: how many layers are blocked at once. */
export interface FlowCurves {
  window: number;
  centres: number[];
  blocks: FlowBlock[];
  forwards: number;
}

/** A picture on which a concept is strong. `map`: its activation on each patch of the picture's first grid, float32 [rows * cols]; "" without. */
export interface ConceptExample {
  picture: Picture | null;
  answer: string;
  activation: number;
  rows: number;
  cols: number;
  map: string;
}

/** One concept. `opposite`: words of the other sign, for pca; `feature`: its number in the SAE, for sae. `activation`: its highest on an image token of this picture; `places`: the positions of those that have most of it, uint16. */
export interface ConceptItem {
  concept: number;
  words: string[];
  opposite: string[];
  size: number;
  stability: number;
  feature: number | null;
  activation: number;
  places: string;
  examples: ConceptExample[];
}

/** The share of variance left unexplained: of the states that concepts were learned on, and of this picture's image tokens. `zero`: of the former, with nothing as the baseline instead of their mean. */
export interface ConceptFit {
  learned: number | null;
  zero: number | null;
  here: number | null;
}

/** Where the concepts come from. `objective`: what was minimised; `about`: what is known about it, with measured figures. */
export interface ConceptDictionary {
  name: string;
  method: string;
  objective: string;
  layer: number;
  where: string;
  states: number;
  fit: ConceptFit;
  overlap: number | null;
  about: string;
  notes: string[];
}

/** What both models answered to a picture. */
export interface AnswerPair {
  before: string;
  after: string;
}

/** What happened to one concept. See `interp.concept_shift`. `answers`: to its example pictures, as far as both models answered them; `after`: the pictures on which its match is strong. */
export interface ShiftedItem {
  concept: number;
  size: number;
  relative: number;
  consistency: number | null;
  recovery: number | null;
  cosine: number;
  words: string[];
  after_words: string[];
  gained: string[];
  lost: string[];
  answers: (AnswerPair | null)[];
  after: ConceptExample[];
}

/** A model beside its fine-tune: the concepts, the most moved first. `correlation`: of recovery with consistency. */
export interface ShiftPayload {
  before: string;
  after: string;
  compared: number;
  correlation: number | null;
  concepts: ShiftedItem[];
}

/** A feature of an SAE, and the cosine of its decoder direction with a concept's. */
export interface NearFeature {
  feature: number;
  cosine: number;
  label: string;
}

/** The SAE features nearest to a concept; `sae` is None if none is known for its layer. */
export interface ConceptDetails {
  concept: number;
  sae: string | null;
  features: NearFeature[];
}

/** The plain answer, the one with a step between concepts, and the one with a random step of the same length. `relative`: the step's length over the states' own. */
export interface SteeredConcepts {
  plain: AnswerText;
  steered: AnswerText;
  random: AnswerText;
  diff: DiffPiece[];
  random_diff: DiffPiece[];
  fired: number;
  relative: number;
}

/** What the view opens with: a concept, and a step to another one. `value` and `where`: as in a request to steer. */
export interface ConceptLook {
  concept: number | null;
  target: number | null;
  value: number;
  where: string;
}

/** The view's data. `codes`: how much of each concept is in the state at each position, float32 [K, T]; `unit`: of a step, "amount" or "strength". `look`: what a link opens with, None for the concept that most of the picture is. */
export interface ConceptsPayload {
  model: string;
  prompt: string;
  answer: string;
  finished: boolean;
  notes: string[];
  image: Picture;
  seen: number[];
  grids: Grid[];
  regions: Region[];
  tokens: Tokens;
  schema: string;
  run: string | null;
  dictionary: ConceptDictionary;
  left_out: number[];
  unit: string;
  concepts: ConceptItem[];
  codes: string;
  shift: ShiftPayload | null;
  look: ConceptLook | null;
  limits: string;
}

/** What a study is of. `alive`: features active on a picture; `pool`: "mean" or "max", by which pictures are ranked. */
export interface StudyFacts {
  name: string;
  model: string;
  sae: string;
  layer: number;
  features: number;
  alive: number;
  samples: number;
  pool: string;
}

/** A picture of a feature. `picture` has the size of the original; `boxes`: float32 [patches, 4] in its pixels, and `values`: float32 [patches], of the active patches. */
export interface IndexedPicture {
  picture: Picture;
  id: string;
  score: number;
  boxes: string;
  values: string;
}

/** A control beside a score. */
export interface ControlItem {
  name: string;
  value: number | null;
}

/** A score, None where undefined. */
export interface FigureItem {
  name: string;
  value: number | null;
  controls: ControlItem[];
}

/** Tokens by their activation: `edges` has one more entry than the counts, or none if all are 0. */
export interface IndexedHistogram {
  edges: number[];
  on_pictures: number[];
  on_text: number[];
}

/** A feature with a similar decoder direction. */
export interface IndexedNeighbour {
  feature: number;
  cosine: number;
  label: string;
}

/** All that a study knows of a feature. `undefined`: why a measure has no score; `peak`: the highest activation on a picture. */
export interface IndexedItem {
  feature: number;
  label: string;
  source: string;
  explanation: string;
  category: string;
  scores: FigureItem[];
  undefined: string[];
  pictures: number;
  tokens: number;
  peak: number;
  histogram: IndexedHistogram;
  neighbours: IndexedNeighbour[];
  promotes: string[];
  suppresses: string[];
  top: IndexedPicture[];
}

/** A study, and one feature of it. */
export interface StudyPart {
  study: StudyFacts;
  feature: IndexedItem;
}

/** A feature that a search found. */
export interface FoundLabel {
  feature: number;
  label: string;
}

/** What a search found. */
export interface FoundIndexed {
  features: FoundLabel[];
  note: string;
}

/** A feature as steering takes it. `sae`: its name on this page; `max`: the highest activation in the study. */
export interface HandOver {
  sae: string;
  layer: number;
  feature: number;
  label: string;
  max: number;
}

/** The view's data. `studies`: all that are open here. */
export interface StudyPayload {
  study: StudyFacts;
  feature: IndexedItem;
  schema: string;
  studies: string[];
  limits: string;
}
