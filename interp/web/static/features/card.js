// One feature and one place in detail: the card with its words and tokens, the readout of a patch, the layers on the picture, the fit.
/** @import { FeatureData } from "./data.js" */
import { barRows, el, tokenElement } from "../shared/elements.js";
import { KINDS, placeName, tokenRuns } from "../shared/payload.js";
import { amount, look, plural, safeLink, share } from "../shared/text.js";

const HERE = 6; // features in the readout; features.css keeps room for as many

export function name(entry) {
  const node = el("span", entry.label ? "" : "view-dim");
  node.textContent = entry.label || "no name";
  const number = el("small", "features-number", `#${entry.feature}`);
  const both = el("span");
  both.append(node, " ", number);
  return both;
}

// How well the SAE fits these tokens, next to the figures of its own training.
export function quality(part, payload) {
  const terms = [
    ["tokens", "Tokens of this picture and text that were measured; those named below are left out"],
    ["explained variance", "How much of the states' variance the features reproduce: 1 is all of it, 0 is no more than their mean"],
    ["L0", "How many features are active on a token, on average"],
    ["features active", "Share of all features that are active on at least one of these tokens"],
  ];
  const head = el("tr");
  head.append(el("th", "", "SAE fit"));
  for (const [text, about] of terms) {
    const th = el("th"),
      term = el("abbr", "", text);
    th.scope = "col";
    term.title = about;
    th.append(term);
    head.append(th);
  }
  const variance = (v) => (v === null || v === undefined ? null : v.toFixed(2));
  const figure = (text, own) => {
    const td = el("td", "", text);
    if (own) {
      const small = el("small", "", `own data ${own}`);
      small.title = "Measured on the kind of data this SAE was trained on";
      td.append(" ", small);
    }
    return td;
  };
  const rows = payload.quality.map((fit) => {
    const line = el("tr"),
      th = el("th", "", `on ${fit.kind}`),
      { trained } = fit;
    th.scope = "row";
    line.append(
      th,
      figure(fit.tokens.toLocaleString("en"), null),
      figure(variance(fit.explained_variance) || "–", trained && variance(trained.explained_variance)),
      figure(amount(fit.l0), trained && trained.l0 !== null ? amount(trained.l0) : null),
      figure(share(fit.active_share), null),
    );
    if (fit.verdict) line.className = "features-poor";
    return line;
  });
  part.quality.replaceChildren(head, ...rows);
  part.verdicts.replaceChildren(...payload.quality.filter((fit) => fit.verdict).map((fit) => el("p", "", fit.verdict)));
}

// The tokens of prompt and answer, once per payload; `mark` colours them for a feature.
export class Strip {
  /**
   * on: {point(row), pick(row), signal}
   * @param {FeatureData} data
   */
  constructor(data, part, on) {
    this.data = data;
    this.part = part;
    this.nodes = new Map();
    this.images = [];
    const nodes = tokenRuns(data).map((run) => (run.row === undefined ? this.image(run) : this.token(run.row)));
    const last = el("span", "features-last");
    last.append(tokenElement(look(data.tokens[data.T])));
    last.title = "The last token never enters the model, so it has no activation";
    part.strip.replaceChildren(...nodes, last);
    const first = part.strip.querySelector("button");
    if (first) first.tabIndex = 0;
    const row = (event) => {
      const node = event.target.closest("button");
      return node ? +node.dataset.row : null;
    };
    const listen = (type, fn) => part.strip.addEventListener(type, fn, { signal: on.signal });
    listen("pointerover", (event) => {
      if (event.pointerType !== "touch") on.point(row(event));
    });
    listen("pointerleave", () => on.point(null));
    listen("click", (event) => {
      if (row(event) !== null) on.pick(row(event));
    });
    listen("keydown", (event) => this.key(event));
    part.leftOut.textContent = data.leftOut.size ? `Dashed: left out of rankings, averages and the scale (${this.left()}).` : "";
  }

  left() {
    const rows = [...this.data.leftOut];
    const said = rows
      .slice(0, 6)
      .map((row) => (this.data.place.has(row) ? `patch ${placeName(this.data, row)}` : look(this.data.tokens[row] ?? "").text));
    return `${said.join(", ")}${rows.length > 6 ? ` and ${rows.length - 6} more` : ""}; beginning of text and attention sinks`;
  }

  token(row) {
    const { data } = this;
    const node = el("button", `features-token features-${data.kinds[row]}`);
    Object.assign(node, { type: "button", tabIndex: -1 });
    node.dataset.row = row;
    const read = data.regionOf.get(row);
    node.append(read ? el("span", "view-token view-dim", `${read.index + 1} · ${read.region.name}`) : tokenElement(look(data.tokens[row])));
    node.classList.toggle("features-left-out", data.leftOut.has(row));
    this.nodes.set(row, node);
    return node;
  }

  image(run) {
    const node = el("span", "features-run");
    this.images.push({ ...run, node });
    return node;
  }

  key(event) {
    const nodes = [...this.nodes.values()];
    const at = nodes.indexOf(event.target.closest("button"));
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: nodes.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    if (!nodes[to]) return;
    nodes[at].tabIndex = -1;
    nodes[to].tabIndex = 0;
    nodes[to].focus();
  }

  mark(entry, locked) {
    const { data, part } = this;
    for (const [row, node] of this.nodes) {
      const value = entry.at[row],
        left = data.leftOut.has(row);
      node.style.setProperty("--p", entry.textPeak > 0 ? Math.min(1, value / entry.textPeak).toFixed(3) : left && value > 0 ? "1" : "0");
      node.setAttribute("aria-pressed", String(row === locked));
      node.title = `position ${row}, ${KINDS[data.kinds[row]] || "other"}: ${amount(value)}${left ? " (left out of rankings)" : ""}`;
    }
    for (const { from, to, count, node } of this.images) {
      let most = 0,
        active = 0;
      for (let row = from; row <= to; row++) {
        most = Math.max(most, entry.at[row]);
        if (entry.at[row] > 0 && data.kinds[row] === "i") active += 1;
      }
      node.textContent = `[${plural(count, "image patch", "image patches")}: ${active ? `active on ${active}, up to ${amount(most)}` : "active on none"}]`;
    }
    part.stripNote.textContent =
      entry.textPeak > 0
        ? `Strongest tint: ${amount(entry.textPeak)}, its highest in the text. Click a token to list its features.`
        : entry.texts
          ? "In the text, active only on tokens that are left out."
          : "Not active in the text. Click a token to list its features.";
  }
}

export function card(part, entry) {
  part.card.hidden = !entry;
  if (!entry) return;
  part.name.replaceChildren(name(entry));
  part.nameChips.replaceChildren(...(entry.dense ? [el("span", "view-chip features-warn", `dense: ${entry.dense}`)] : []));
  part.source.textContent = entry.label
    ? `Name from: ${entry.source || "no source given"}`
    : entry.source || "No name was found for this feature.";
  const words = (node, list) => {
    node.replaceChildren(...list.map((text) => tokenElement(look(text))));
    if (!list.length) node.append(el("span", "view-dim", "not known"));
  };
  words(part.up, entry.top);
  words(part.down, entry.bottom);
  const href = entry.link ? safeLink(entry.link) : null;
  part.links.replaceChildren();
  if (href) {
    const link = el("a", "", "Neuronpedia");
    Object.assign(link, { href, target: "_blank", rel: "noopener noreferrer" });
    part.links.append(link);
  }
}

// The listed features that are active at a position.
export function here(part, data, entries, row, selected) {
  const active = data.activeAt(entries, row);
  const place = data.place.has(row);
  part.where.replaceChildren(document.createTextNode(`${place ? "Patch " : ""}${placeName(data, row)} `));
  if (!place) part.where.append(tokenElement(look(data.tokens[row])));
  const left = data.leftOut.has(row) ? " · left out of rankings" : "";
  part.whereSub.textContent = `position ${row} · ${active.length ? `${active.length} of ${entries.length}` : "none of the"} listed features active${left}`;
  const top = active.length ? active[0].at[row] : 1;
  barRows(
    part.top,
    active.slice(0, HERE).map((entry) => [name(entry), entry.at[row] / top, amount(entry.at[row])]),
  );
  [...part.top.children].forEach((node, i) => {
    node.classList.toggle("features-chosen", active[i].feature === selected);
  });
}

// The features on the picture: their colours, and a way to take them off.
export function layers(part, data, shown, pinned, colours) {
  part.layers.hidden = shown.length < 2 && !pinned.length;
  part.layers.replaceChildren(
    ...shown.map((entry) => {
      const item = el("li"),
        swatch = el("i");
      swatch.style.background = shown.length > 1 ? colours.get(entry.feature) : "transparent";
      item.append(swatch, name(entry), el("small", "view-dim", entry.peak > 0 ? `up to ${amount(entry.peak)}` : "not on the picture"));
      if (pinned.includes(entry.feature)) {
        const off = el("button", "", "×");
        off.type = "button";
        off.dataset.feature = entry.feature;
        off.setAttribute("aria-label", `Take ${data.name(entry)} off the picture`);
        item.append(off);
      } else {
        item.append(el("small", "view-chip", "selected"));
      }
      return item;
    }),
  );
}

// The colour scale, and what the map does not show in words.
export function scale(part, data, state, shown) {
  const one = shown.length === 1 ? shown[0] : null;
  part.scale.classList.toggle("view-off", !one || !(one.peak > 0));
  part.scale.hidden = shown.length > 1;
  part.scaleLow.textContent = "0, no tint";
  part.scaleHigh.textContent = one ? `${amount(one.peak)}, highest on the picture` : "";
  const silent = shown.filter((entry) => !(entry.peak > 0));
  const elsewhere = one && one.peak > 0 && ![...data.grids[state.grid].positions].some((row) => one.at[row] > 0);
  part.mapNote.textContent = data.regions.length
    ? `The image tokens of this model have no patches of their own${one ? `; this feature is active on ${plural(one.texts, "token")} below` : ""}.`
    : elsewhere
      ? `Not active on this grid; highest in ${data.grids[data.place.get(one.peakRow).grid].name}.`
      : one && silent.length
        ? `Not active on this picture${one.texts ? `, only on ${plural(one.texts, "token")} of the text` : " or its text"}.`
        : silent.length
          ? `Not active on this picture: ${silent.map((entry) => data.name(entry)).join(", ")}.`
          : shown.length > 1
            ? "Each colour is scaled to its feature's highest activation on the picture."
            : "";
  const named = shown.map(
    (entry) =>
      `${data.name(entry)}, number ${entry.feature}${entry.peak > 0 ? `, highest ${amount(entry.peak)} at ${placeName(data, entry.peakRow)}` : ", on no patch"}`,
  );
  part.base.setAttribute(
    "aria-label",
    `The picture with ${data.grids[state.grid].rows} by ${data.grids[state.grid].cols} patches. ${named.length ? `Shown: ${named.join("; ")}.` : "No feature is shown."}`,
  );
}
