// The search for a feature to add: a text box, the question to the host, and the list of answers to pick from.
// Of the edits it only asks `has(feature)`; it reports a choice by pick(feature).
import { Asker } from "../shared/asker.js";
import { el } from "../shared/elements.js";
import { plural } from "../shared/text.js";
import * as Edit from "./edit.js";

export class EditSearch {
  // host: {steerable(text, run)}; on: {pick(feature), pickAll(features, name), has(feature), run(), signal}
  constructor(part, host, serial, on) {
    this.part = part;
    this.host = host;
    this.on = on;
    this.asker = new Asker(on.signal);
    this.found = [];
    this.at = 0;
    this.asked = "";
    this.id = `edits-results-${serial}`;
    part.results.id = this.id;
    part.text.setAttribute("aria-controls", this.id);
    const listen = (node, type, fn) => node.addEventListener(type, fn, { signal: on.signal });
    listen(part.search, "submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    listen(part.text, "keydown", (event) => this.key(event));
    listen(part.text, "input", () => {
      this.clear();
    });
    listen(part.results, "pointerdown", (event) => event.preventDefault()); // the text box keeps the focus
    listen(part.results, "click", (event) => {
      const item = event.target.closest("[role=option]");
      if (item) this.pick([...part.results.children].indexOf(item));
    });
  }

  // Drop the list and any answer still on its way.
  clear() {
    this.asker.cancel("search");
    this.list([]);
    this.say("");
  }

  async ask() {
    const text = this.part.text.value.trim();
    this.clear();
    if (!text) return this.say("Type a word or a number first.", true);
    this.say("Searching …");
    const silence = "The server could not search. Run the picture again, or try another word.";
    const out = await this.asker.ask("search", async () => read(await this.host.steerable(text, this.on.run())), silence);
    if (!out) return;
    if (out.error) return this.say(out.error, true);
    const { features, all, note } = out.answer;
    this.list(all.length > 1 ? [{ together: all, name: text }, ...features] : features);
    this.say(
      [features.length ? `${plural(features.length, "feature")} found; pick one to add it.` : `No feature found for “${text}”.`, note]
        .filter(Boolean)
        .join(" "),
    );
  }

  list(found) {
    const { part } = this;
    this.found = found;
    this.at = found[0]?.together ? 1 : 0; // Enter adds one feature unless the reader chose all
    part.results.replaceChildren(...found.map((one, i) => this.option(one, i)));
    part.results.hidden = !found.length;
    part.text.setAttribute("aria-expanded", String(found.length > 0));
    this.mark();
  }

  option(one, i) {
    const item = el("li");
    if (one.together) {
      item.id = `${this.id}-${i}`;
      item.setAttribute("role", "option");
      item.append(el("span", "", `All ${one.together.length} features named ${one.name}`));
      item.append(el("small", "edits-activity", "switched off on the image tokens"));
      return item;
    }
    const number = el("small", "view-dim", `feature ${one.feature}`);
    item.id = `${this.id}-${i}`;
    item.setAttribute("role", "option");
    item.append(el("span", one.label ? "" : "view-dim", one.label || "no name"), number);
    item.append(el("small", "edits-activity", [Edit.activity(one), this.on.has(one) ? "in the list" : ""].filter(Boolean).join(" · ")));
    return item;
  }

  mark() {
    const { part, at } = this;
    [...part.results.children].forEach((item, i) => {
      item.setAttribute("aria-selected", String(i === at));
    });
    const item = part.results.children[at];
    if (item) part.text.setAttribute("aria-activedescendant", item.id);
    else part.text.removeAttribute("aria-activedescendant");
    item?.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const { found } = this;
    if (event.key === "Escape") {
      event.stopPropagation();
      if (!found.length) this.part.text.value = "";
      return this.clear();
    }
    if (!found.length) return;
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move) {
      event.preventDefault();
      this.at = (this.at + move + found.length) % found.length;
      this.mark();
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.pick(this.at);
    }
  }

  pick(i) {
    const one = this.found[i];
    this.clear();
    this.part.text.value = "";
    if (one.together) this.on.pickAll(one.together, one.name);
    else this.on.pick(one);
  }

  say(text, bad = false) {
    this.part.searchNote.textContent = text;
    this.part.searchNote.classList.toggle("view-bad", bad);
    this.part.text.setAttribute("aria-invalid", String(bad));
  }
}

// An answer of the wrong shape is an error like any other.
function read(answer) {
  if (!answer || answer.error) return answer;
  try {
    const checked = (list) => list.map((raw, i) => Edit.check(raw, `feature ${i + 1}`));
    return { ...answer, features: checked(answer.features), all: checked(answer.all ?? []) };
  } catch {
    return { error: "The server's answer could not be read." };
  }
}
