// What every view is made of: typed arrays out of base64, tokens as they are shown, elements, switches, files, the theme.
// Knows no payload as a whole and no view.
// Every text from a model, a prompt or a token goes in by textContent.
(function (Lens) {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const KINDS = { i: "image", s: "separator", p: "prompt", a: "answer", x: "special" };

  function bytes(text) {
    const raw = atob(text);
    const out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  }

  function array(Type, text, length, name) {
    const data = bytes(text);
    if (data.length !== length * Type.BYTES_PER_ELEMENT) {
      throw new Error(`The data of this view is damaged: ${name} has ${data.length} bytes, not ${length * Type.BYTES_PER_ELEMENT}.`);
    }
    return new Type(data.buffer);
  }

  // Refused by name, so that a view never half-draws what it does not read.
  function known(payload, schema) {
    if (!payload || payload.schema !== schema) throw new Error(`This view reads ${schema}; it was given ${(payload && payload.schema) || "something else"}.`);
  }

  const NO_GRID = { name: "no patches", rows: 0, cols: 0, view: null, positions: new Uint16Array(0), boxes: new Float32Array(0) };

  // The grids with their arrays, and where each row of T lies: {grids, place: row -> {grid, index}, finest: the grid to begin with}.
  // Tokens of a perceiver have no place but a region: {regions, regionOf: row -> {region, index}}. Without any grid there is one of no patches.
  function patches(payload) {
    const place = new Map();
    const grids = payload.grids.map((grid, g) => {
      const n = grid.rows * grid.cols;
      const positions = array(Uint16Array, grid.positions, n, "positions");
      positions.forEach((row, index) => place.set(row, { grid: g, index }));
      return { name: grid.name, rows: grid.rows, cols: grid.cols, view: grid.view, positions, boxes: array(Float32Array, grid.boxes, n * 4, "boxes") };
    });
    const regionOf = new Map();
    const regions = (payload.regions || []).map(({ name, box, positions }) => {
      const rows = array(Uint16Array, positions, bytes(positions).length / 2, "positions of a region");
      const region = { name, box, count: rows.length };
      rows.forEach((row, index) => regionOf.set(row, { region, index }));
      return region;
    });
    const sizes = grids.map(({ rows, cols }) => rows * cols);
    if (!grids.length) grids.push(NO_GRID);
    return { grids, place, regions, regionOf, finest: Math.max(0, sizes.indexOf(Math.max(...sizes))) };
  }

  // All tokens in order: {from, to, count} for a run of patches with their separators, {row} for any other. A token without a place stands for
  // itself, for it cannot be reached on the picture. The last token was never read.
  function runs({ kinds, T, regionOf }) {
    const list = [];
    for (let row = 0; row < T; row++) {
      const patch = kinds[row] === "i" && !regionOf.has(row);
      const last = list[list.length - 1];
      if (!patch && kinds[row] !== "s") list.push({ row });
      else if (last && last.to === row - 1) { last.to = row; last.count += patch; }
      else list.push({ from: row, to: row, count: +patch });
    }
    const alone = ({ from, to }) => Array.from({ length: to - from + 1 }, (_, i) => ({ row: from + i }));
    return list.flatMap((run) => (run.count === 0 ? alone(run) : [run])); // separators between tokens without a place
  }

  // How a token is shown: {text, lead: it starts with a space, dim: blank, punctuation or a piece of a character}.
  function look(text) {
    if (text.trim() === "") {
      const signs = { " ": "␣", "\n": "↵", "\r": "↵", "\t": "⇥" };
      const shown = text === "" ? "“”" : Array.from(text.slice(0, 4), (c) => signs[c] || "␣").join("");
      return { text: shown + (text.length > 4 ? "…" : ""), lead: false, dim: true };
    }
    const core = text.trim().replace(/[\n\r]/g, "↵").replace(/\t/g, "⇥");
    const lead = /^\s/.test(text);
    if (/^<0x[0-9A-F]{2}>$/i.test(core) || core.includes("\uFFFD")) return { text: core, lead, dim: true };
    // Emoji are \p{So} and count as words.
    if (/^[\p{P}\p{Sm}\p{Sc}\p{Sk}\p{C}\s↵⇥]+$/u.test(core)) return { text: `“${core}”`, lead: false, dim: true };
    return { text: core, lead, dim: false };
  }

  // Heading of a row of T: which patch or which token it is.
  function where(data, row) {
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

  function el(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function svg(tag, attributes, text) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  // A token as it is: a leading space is drawn, because " dog" and "dog" are different tokens.
  function token(shown) {
    const node = el("span", shown.dim ? "lens-token lens-dim" : "lens-token");
    if (shown.lead) node.append(el("i", "lens-space", "␣"));
    node.append(document.createTextNode(shown.text));
    return node;
  }

  // Rows of a name, a bar and a number; `rows` is [[element or text, share of the bar 0..1, number as text]].
  function barRows(list, rows) {
    while (list.children.length > rows.length) list.lastChild.remove();
    while (list.children.length < rows.length) {
      const item = el("li");
      item.append(el("span", "lens-word"), el("span", "lens-bar-back"), el("span", "lens-percent"));
      item.children[1].append(el("i"));
      list.append(item);
    }
    rows.forEach(([name, share, number], j) => {
      const [word, back, figure] = list.children[j].children;
      word.replaceChildren(name);
      back.firstChild.style.width = `${Math.max(0.4, share * 100)}%`;
      figure.textContent = number;
    });
  }

  function parts(root) {
    const part = {};
    root.querySelectorAll("[data-part]").forEach((node) => { part[node.dataset.part] = node; });
    return part;
  }

  // Radio groups need names that are unique in the page, whichever views are on it.
  function serial() { return (Lens.views = (Lens.views || 0) + 1); }

  function radios(box, name, options, value, change) {
    box.querySelectorAll("label").forEach((node) => node.remove());
    for (const [key, text] of options) {
      const label = el("label"), input = el("input");
      Object.assign(input, { type: "radio", name, value: key, checked: key === value });
      input.addEventListener("change", () => change(key));
      label.append(input, el("span", "", text));
      box.append(label);
    }
  }

  function save(blob, name) {
    const link = el("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // Dark when an ancestor has the class "dark" (gradio); with no gradio, when the reader's system is dark. Until `signal` aborts.
  function theme(root, followSystem, changed, signal) {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const apply = () => {
      const dark = followSystem ? system.matches : Boolean(root.closest(".dark"));
      root.dataset.theme = dark ? "dark" : "light";
      changed();
    };
    system.addEventListener("change", apply, { signal });
    const observer = new MutationObserver(apply);
    for (const node of [document.documentElement, document.body]) observer.observe(node, { attributes: true, attributeFilter: ["class"] });
    signal.addEventListener("abort", () => observer.disconnect());
    apply();
  }

  // What every view is before it shows anything: it follows the theme and the width, takes payloads, and drops what it showed before.
  // A view adds `begin(data, picture, signal)` and `render(size)`. `kind`: {state, Data, Picture, empty, unreadable}.
  class Shell {
    constructor(root, options, kind) {
      Object.assign(this, { root, options, kind, part: parts(root), serial: serial(), page: new AbortController() });
      theme(root, options.followSystem, () => this.render(), this.page.signal);
      this.resize = new ResizeObserver(() => this.render(true));
      this.resize.observe(this.part.frame);
    }

    destroy() {
      this.page.abort();
      this.run?.abort();
      this.resize.disconnect();
    }

    message(text, bad) {
      this.part.empty.textContent = text;
      this.part.empty.classList.toggle("lens-bad", Boolean(bad));
      this.part.empty.hidden = false;
      this.part.body.hidden = true;
    }

    // Show a payload; null shows the empty state. Everything of the payload before is dropped.
    async set(payload) {
      const { kind, part } = this;
      this.run?.abort();
      this.run = new AbortController();
      const { signal } = this.run;
      this.data = this.picture = this.table = this.find = null;
      this.root[kind.state] = { ready: false };
      delete this.root.dataset.ready;
      if (!payload) return this.message(kind.empty);
      try {
        const data = new kind.Data(payload);
        const picture = new kind.Picture(data, part.base, part.marks);
        await picture.load().catch(() => { throw new Error(kind.unreadable); });
        if (!signal.aborted) this.begin(data, picture, signal);
      } catch (error) {
        if (!signal.aborted) this.message(error.message, true);
      }
    }
  }

  // The tab of SAE features, and the way there with a place: views listen for the event, so that neither has to know the other.
  function featuresTab() {
    return document.querySelector("#sae-tab-button") || [...document.querySelectorAll("button[role=tab], .overflow-dropdown button")].find((tab) => tab.textContent.trim() === "SAE features") || null;
  }

  function openFeatures(row, { image, prompt, answer }) {
    const detail = { position: row, of: { image: image.src, prompt, answer } };
    const event = new CustomEvent("llava:patch", { detail, cancelable: true });
    // A view that takes it says so; a tab that was never open has no view yet, which finds the place here when it is made.
    if (document.dispatchEvent(event)) Lens.waiting = detail;
    featuresTab()?.click();
  }

  Object.assign(Lens, { featuresTab, openFeatures, KINDS, bytes, array, known, patches, runs, look, where, el, svg, token, barRows, parts, serial, radios, save, theme, Shell });
})((globalThis.LlavaLens = globalThis.LlavaLens || {}));
