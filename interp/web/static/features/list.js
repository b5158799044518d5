// Which features are listed (those of the payload, of a place, or of a search), and the questions to the host behind that.
// Calls `changed` when other features are listed.
/** @import { FeatureData } from "./data.js" */
import { plural } from "../shared/text.js";

export class Listing {
  /**
   * host: {featuresAt, findFeatures}, either may be absent
   * @param {FeatureData} data
   */
  constructor(data, part, host, asker, changed, signal) {
    const { payload } = data;
    this.data = data;
    this.part = part;
    this.host = host;
    this.asker = asker;
    this.changed = changed;
    this.sort = null;
    this.hideDense = false;
    this.searched = null;
    this.busy = "";
    this.note = "";
    this.bad = false;
    this.own = {
      title: `Features of ${payload.where}`,
      entries: data.home,
      note: "",
      sub: this.figures(data.home.length, payload.active, payload.looked_at),
    };
    this.base = this.own;
    const on = (node, type, fn) => node.addEventListener(type, fn, { signal });
    part.filter.value = "";
    part.hideDense.checked = false;
    part.findGo.hidden = !host.findFeatures;
    on(part.filter, "input", () => {
      this.say("");
      this.changed();
    });
    on(part.filter, "keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") this.clear();
    });
    on(part.search, "submit", (event) => {
      event.preventDefault();
      if (host.findFeatures) this.find(part.filter.value.trim());
    });
    on(part.findClear, "click", () => {
      this.clear();
      part.filter.focus();
    });
    on(part.hideDense, "change", () => {
      this.hideDense = part.hideDense.checked;
      this.changed();
    });
    this.say("");
  }

  figures(listed, active, looked) {
    const order =
      { mean: "mean activation", max: "highest activation", frequency: "share of tokens" }[this.data.payload.rank_by] ||
      this.data.payload.rank_by;
    return `${listed.toLocaleString("en")} listed of ${active.toLocaleString("en")} active · ranked by ${order} over ${plural(looked, "token")}`;
  }

  get current() {
    return this.searched || this.base;
  }

  // Features in the order of the table, and how many are left out for which reason.
  visible() {
    const { data, part, current } = this;
    const text = this.searched && part.filter.value.trim() === this.searched.text ? "" : part.filter.value;
    const matching = current.entries.filter((entry) => data.matches(entry, text));
    const entries = data.sorted(this.hideDense ? matching.filter((entry) => !entry.dense) : matching, this.sort);
    return { entries, text: text.trim(), unmatched: current.entries.length - matching.length, hidden: matching.length - entries.length };
  }

  home() {
    this.asker.cancel("list");
    this.base = this.own;
    this.searched = null;
    this.busy = "";
    this.say("");
    this.changed();
  }

  // Features of a place: the `request` to the host, its name in `words`, its positions `rows`.
  async at(request, words, rows) {
    const { data, host } = this;
    const title = `Features of ${words}`;
    const local = (note, bad) => {
      const entries = data.local(rows);
      this.base = {
        title,
        entries,
        note: "",
        sub: `${plural(entries.length, "listed feature")} active there · ${plural(rows.length, "token")}`,
      };
      this.say(note, bad);
    };
    this.searched = null;
    if (!host.featuresAt) {
      this.asker.cancel("list");
      this.busy = "";
      local(`This page has no model: only the ${data.home.length} features listed for ${data.payload.where} were checked.`, false);
      return this.changed(title);
    }
    this.base = { ...this.base, title, sub: "" };
    this.busy = "Looking up the features there…";
    this.say("");
    this.changed();
    const out = await this.asker.ask(
      "list",
      async () => this.read(await host.featuresAt(request, data.run)),
      "The server could not look this up. Run the picture again, or try another place.",
    );
    if (!out) return;
    this.busy = "";
    if (out.error) {
      local(`${out.error} Shown instead: the features listed for ${data.payload.where} that are active there.`, true);
    } else {
      this.base = {
        title,
        entries: out.answer.entries,
        note: "",
        sub: this.figures(out.answer.entries.length, out.answer.active, out.answer.looked_at),
      };
    }
    this.changed(`${out.error ? `${out.error} ` : ""}${plural(this.base.entries.length, "feature")} of ${words}`);
  }

  async find(text) {
    if (!text) return this.say("Type a word or a number first.", true);
    this.busy = "Searching the whole SAE…";
    this.say("");
    this.changed();
    const out = await this.asker.ask(
      "list",
      async () => this.read(await this.host.findFeatures(text, this.data.run)),
      "The server could not search. Run the picture again, or try another word.",
    );
    if (!out) return;
    this.busy = "";
    if (out.error) {
      this.say(out.error, true);
      return this.changed(out.error);
    }
    const { entries, note } = out.answer;
    const found = `${entries.length ? plural(entries.length, "feature") : "No feature"} of this SAE for “${text}”`;
    this.searched = { text, entries, title: found, sub: "including features not active on this picture" };
    this.say(note || "");
    this.changed(`${found}. ${note || ""}`);
  }

  // Decode the features of an answer; damaged ones are an error like any other.
  read(answer) {
    if (!answer || answer.error) return answer;
    return { ...answer, entries: answer.features.map((raw) => this.data.feature(raw)) };
  }

  clear() {
    this.asker.cancel("list");
    this.searched = null;
    this.busy = "";
    this.part.filter.value = "";
    this.say("");
    this.changed();
  }

  say(text, bad = false) {
    this.note = text;
    this.bad = bad;
    this.part.listNote.textContent = text;
    this.part.listNote.classList.toggle("view-bad", bad);
    this.part.filter.setAttribute("aria-invalid", String(bad && text === "Type a word or a number first."));
  }

  // The texts around the table.
  lines({ entries, text, unmatched, hidden }, placed) {
    const { part, current, data } = this;
    part.listTitle.textContent = current.title;
    part.listSub.textContent = this.busy || current.sub;
    part.scroller.setAttribute("aria-busy", String(Boolean(this.busy)));
    part.back.hidden = !placed;
    part.back.textContent = `Back to ${data.payload.where}`;
    part.findClear.hidden = !this.searched && !part.filter.value;
    part.denseBox.hidden = !this.hideDense && !current.entries.some((entry) => entry.dense);
    const why = [];
    if (unmatched) why.push(`${unmatched} without “${text}” in label or number`);
    if (this.hideDense) why.push(`${hidden} hidden because they fire on nearly everything`);
    part.count.textContent = why.length ? `${entries.length} of ${current.entries.length} shown; ${why.join("; ")}.` : "";
  }

  // What the table says when it has no rows.
  nothing({ text, hidden }) {
    if (!this.current.entries.length) return this.searched ? "Nothing found." : "No feature is active here.";
    if (text) return `No listed feature matches “${text}”.${this.host.findFeatures ? " Press Enter to search the whole SAE." : ""}`;
    return `All ${hidden} are hidden.`;
  }
}
