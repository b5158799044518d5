// The payload of steering edits, checked, and every question asked of one edit: its slider's range, its place and its unit in words, what a
// typed number means. Knows the payload contract ("llava-microscope/edits/1"). Knows nothing of the page: no DOM, no events.
(function (Lens) {
  "use strict";
  const SCHEMA = "llava-microscope/edits/1";
  const UNITS = [["strength", "push"], ["amount", "add"], ["target", "set to"]];
  const PLACES = [["all", "everywhere"], ["image", "image tokens"], ["prompt", "prompt tokens"], ["answer", "the answer"]];
  const UP = 0.5; // the strength that "turn up" means
  const UNKNOWN = 10; // taken for the largest activation where that is not known
  const STEPS = 50; // of a slider, at least, between 0 and the largest activation

  const isCount = (v) => Number.isInteger(v) && v >= 0;
  const isPatches = (v) => Array.isArray(v) && v.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isCount));
  const isPlace = (v) => (typeof v === "string" ? PLACES.some(([key]) => key === v) : Boolean(v) && isPatches(v.patches) && v.patches.length > 0 && isCount(v.grid ?? 0));
  const FIELDS = {
    sae: (v) => typeof v === "string", layer: (v) => v === null || isCount(v), feature: isCount, label: (v) => typeof v === "string",
    unit: (v) => UNITS.some(([key]) => key === v), value: Number.isFinite, where: isPlace,
    max: (v) => v === null || Number.isFinite(v), active: isPatches, on: (v) => typeof v === "boolean",
  };

  // A copy of an edit, refused in words when a part of it is not what it must be.
  function edit(raw, what) {
    for (const [name, fits] of Object.entries(FIELDS)) {
      if (!raw || !fits(raw[name])) throw new Error(`The data of this view is damaged: ${what} has ${JSON.stringify(raw?.[name]) ?? "nothing"} as its ${name}.`);
    }
    const made = structuredClone(raw);
    if (typeof made.where === "object") made.where.grid ??= 0;
    return made;
  }

  class EditsData {
    constructor(payload) {
      Lens.known(payload, SCHEMA);
      const { edits, swept, presets, scene } = payload;
      this.payload = payload;
      this.run = payload.run ?? null;
      this.edits = edits.map((raw, i) => edit(raw, `edit ${i + 1}`));
      if (!isCount(swept) || swept >= Math.max(1, edits.length)) throw new Error(`The data of this view is damaged: edit ${swept} is to be swept, of ${edits.length}.`);
      this.swept = swept;
      this.presets = presets.map((preset) => ({ ...preset, edits: preset.edits.map((raw, i) => edit(raw, `edit ${i + 1} of “${preset.name}”`)) }));
      this.grids = scene ? Lens.patches(scene).grids : [];
    }

    // Why a place cannot be meant on the picture that is shown, or "".
    problem({ where }) {
      if (typeof where === "string" || !this.grids.length) return "";
      const grid = this.grids[where.grid];
      if (!grid) return `These patches are of grid ${where.grid + 1}; this picture has ${Lens.plural(this.grids.length, "grid")}. Choose them anew.`;
      const outside = where.patches.find(([r, c]) => r >= grid.rows || c >= grid.cols);
      return outside ? `Row ${outside[0] + 1}, column ${outside[1] + 1} is not on this picture of ${grid.rows}×${grid.cols} patches. Choose the patches anew.` : "";
    }
  }

  const sameFeature = (a, b) => a.sae === b.sae && a.feature === b.feature;
  const samePlace = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const name = ({ label, feature }) => label || `feature ${feature}`;
  const largest = ({ max }) => (max > 0 ? max : UNKNOWN);
  const isActive = ({ max, active }) => active.length > 0 || max > 0;
  const activePlace = ({ active }) => ({ patches: active.map((pair) => [...pair]), grid: 0 });

  // A feature that was found or handed over, as an edit that does something: as far below 0 as it is above where it is active, else up.
  // Both measured best on the embedded model; a single feature that is only switched off leaves much of its meaning to others.
  function fresh(found) {
    return { ...found, ...(isActive(found) ? { unit: "target", value: -largest(found).toPrecision(2) } : { unit: "strength", value: UP }), where: "image", on: true };
  }

  // What the visitor decides of edits, as one text: the rest is told by the host.
  function plain(edits) { return JSON.stringify(edits.map(({ sae, feature, unit, value, where, on }) => [sae, feature, unit, value, where, on])); }

  // The same edits, with what others of the same features know of where these are active.
  function renewed(edits, others) {
    return edits.map((one) => {
      const { max, active } = others.find((other) => sameFeature(other, one)) ?? one;
      return { ...one, max, active };
    });
  }

  // What a unit starts from when it was not used before.
  function start(chip, unit) { return { strength: UP, amount: +largest(chip).toPrecision(3), target: 0 }[unit]; }

  // {min, max, step} of the slider: 0 is on a step, and the ends are steps too.
  function range(chip, unit) {
    if (unit === "strength") return { min: -1, max: 1, step: 0.05 };
    const m = largest(chip);
    const decade = 10 ** Math.floor(Math.log10(m / STEPS));
    const step = decade * [5, 2, 1].find((of) => of * decade <= m / STEPS);
    const end = (times) => +(Math.ceil((times * m) / step - 1e-9) * step).toPrecision(12);
    return unit === "amount" ? { min: -end(2), max: end(2), step: +step.toPrecision(1) } : { min: -end(2), max: end(3), step: +step.toPrecision(1) };
  }

  // What a text in a number box means: {value}, {error: why not}, or {unfinished: it can still become a number}.
  function number(text) {
    const plain = text.trim().replace(/^\u2212/, "-");
    if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain)) {
      const value = Number(plain);
      return Number.isFinite(value) ? { value } : { error: `${plain} is too large for a number.` };
    }
    if (plain === "") return { error: "Type a number.", unfinished: true };
    if (/^[+-]?\d+,\d+$/.test(plain)) return { error: `“${plain}” is no number here; write it with a point: ${plain.replace(",", ".")}.` };
    return { error: `“${plain}” is no number.`, unfinished: /^[+-]?(\d*\.?\d*)(e[+-]?)?$/i.test(plain) };
  }

  // As a number box shows it: what a float32 adds behind the sixth digit is noise.
  function shown(value) { return String(+value.toPrecision(6)); }

  function explain(chip) {
    const most = chip.max > 0 ? `; its largest here is ${Lens.amount(chip.max)}` : chip.max === 0 ? "; it is not active here" : "";
    if (chip.unit === "strength") return "Strength: a fraction of the usual residual norm, added along the feature’s direction; below 0 pushes it down.";
    if (chip.unit === "amount") return `Amount: adds that much activation${most}.`;
    return `Target: sets its activation to this; 0 switches the feature off, below 0 pushes further${most}.`;
  }

  // Where a feature that was found is active on the picture.
  function activity({ max, active }) {
    if (active.length) return `active on ${Lens.plural(active.length, "patch", "patches")} here${max > 0 ? `, up to ${Lens.amount(max)}` : ""}`;
    return max > 0 ? `active here, up to ${Lens.amount(max)}` : max === 0 ? "not active here" : "";
  }

  function placeWords(where) {
    if (typeof where === "string") return { all: "everywhere", image: "on the image tokens", prompt: "on the prompt tokens", answer: "on the answer" }[where];
    return `on ${Lens.plural(where.patches.length, "chosen patch", "chosen patches")}`;
  }

  Object.assign(Lens, {
    EditsData,
    Edit: { UNITS, PLACES, UP, check: edit, sameFeature, samePlace, name, isActive, activePlace, fresh, plain, renewed, start, range, number, shown, explain, activity, placeWords },
  });
})((globalThis.LlavaLens = globalThis.LlavaLens || {}));
