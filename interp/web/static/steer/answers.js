// The two answers: growing while the model writes, with their differences marked when both are done, and as text to copy.
// Every text goes in by textContent.
/** @import { SteerData } from "./data.js" */
import { markedSide } from "../shared/diff.js";
import { el } from "../shared/elements.js";
import { plural } from "../shared/text.js";
import * as say from "./text.js";

const SIDES = /** @type {const} */ (["plain", "steered"]);

// Growing text is appended to, so that nothing flickers and a selection stays.
export function grow(node, text) {
  const [child] = node.childNodes;
  const grows = node.childNodes.length === 1 && child.nodeType === Node.TEXT_NODE && text.startsWith(child.data);
  if (!grows) node.replaceChildren(document.createTextNode(text));
  else if (text.length > child.data.length) child.appendData(text.slice(child.data.length));
}

export class Answers {
  constructor(part, signal) {
    this.part = part;
    this.key = null;
    part.copy.hidden = !navigator.clipboard; // browsers offer it only over https or on localhost
    part.copy.addEventListener("click", () => this.copy(), { signal });
  }

  // The cards keep their height while a new pair grows into them, so that what is below stays put.
  hold() {
    for (const side of SIDES) this.part[side].style.minHeight = `${this.part[side].offsetHeight}px`;
  }

  /** @param {SteerData} data */
  show(data) {
    const { part } = this;
    const { pair, state, key } = data;
    this.data = data;
    if (key === this.key) return;
    this.key = key;
    if (state !== "running") for (const side of SIDES) part[side].style.minHeight = "";
    for (const side of SIDES) {
      const { text, finished } = pair[side];
      if (data.done) part[side].replaceChildren(...(text ? markedSide(pair.diff, side) : [el("span", "view-dim", "(empty answer)")]));
      else if (state === "stopped" && !text) part[side].replaceChildren(el("span", "view-dim", "(nothing yet)"));
      else grow(part[side], text);
      const chip = state === "stopped" ? "stopped" : finished === false ? `cut at ${plural(pair.settings.max_new_tokens, "token")}` : "";
      const chips = part[`${side}Chips`];
      if (chips.textContent !== chip) chips.replaceChildren(...(chip ? [el("span", "view-chip steer-warn", chip)] : []));
    }
    part.marks.hidden = !(data.done && data.changed);
  }

  async copy() {
    const {
      part,
      data: { pair },
    } = this;
    const edits = (pair.edits || [])
      .map((edit) => `${edit.unit} ${say.value(edit.unit, edit.value)} on ${say.name(edit)}, layer ${edit.layer}`)
      .join("; ");
    const text = `Prompt: ${pair.prompt}\nWithout edits: ${pair.plain.text}\nSteered${edits ? ` (${edits})` : ""}: ${pair.steered.text}\n`;
    part.copy.textContent = await navigator.clipboard.writeText(text).then(
      () => "Copied",
      () => "The browser refused",
    );
    setTimeout(() => {
      part.copy.textContent = "Copy both answers";
    }, 2000);
  }
}
