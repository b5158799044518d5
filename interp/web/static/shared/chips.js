// The tokens of an answer as a row of buttons, of which one is chosen. The row is one stop of the Tab key; arrow keys, Home and End move in it.
// Tells its host which token was chosen, and which one the pointer is on (null: none).
/** @import { Look } from "./text.js" */
import { el, tokenElement } from "./elements.js";
import { look } from "./text.js";

/**
 * `dress` adds to a button what a view wants beside the token; `name` is read aloud instead of the token alone.
 * @typedef {{ choose(i: number): void, point(i: number | null): void }} ChipsHost
 * @typedef {{ at?: number, end?: number, dress?: (node: HTMLButtonElement, i: number) => void, name?: (shown: Look, i: number) => string }} ChipsLook
 */

export class Chips {
  /**
   * @param {HTMLElement} box an element with the class "view-chips"
   * @param {ChipsHost} host
   * @param {AbortSignal} signal
   */
  constructor(box, host, signal) {
    this.box = box;
    this.host = host;
    /** @type {HTMLButtonElement[]} */
    this.nodes = [];
    this.chosen = 0;
    /** @type {number | null} */
    this.hover = null;
    /** @param {Event} event */
    const at = (event) => this.nodes.findIndex((node) => node.contains(/** @type {Node} */ (event.target)));
    box.addEventListener(
      "pointerover",
      (event) => {
        if (event.pointerType !== "touch" && at(event) >= 0) this.point(at(event));
      },
      { signal },
    );
    box.addEventListener("pointerleave", () => this.point(null), { signal });
    for (const type of ["click", "focusin"]) {
      box.addEventListener(
        type,
        (event) => {
          if (at(event) >= 0) this.pick(at(event));
        },
        { signal },
      );
    }
    box.addEventListener("keydown", (event) => this.keys(event, at(event)), { signal });
  }

  /** The token that is pointed at, else the chosen one. */
  get read() {
    return this.hover ?? this.chosen;
  }

  /**
   * Show other tokens. `at`: the chosen one; `end`: the token that ends the answer.
   * @param {string[]} tokens
   * @param {ChipsLook} [look]
   */
  draw(tokens, { at = 0, end = -1, dress, name } = {}) {
    this.chosen = at;
    this.hover = null;
    this.nodes = tokens.map((text, i) => {
      const shown = look(text);
      const node = el("button");
      node.type = "button";
      node.append(tokenElement(i === end ? { ...shown, dim: true } : shown));
      const spoken = i === end ? { ...shown, text: "end of the answer" } : shown;
      node.setAttribute("aria-label", name ? name(spoken, i) : spoken.text);
      dress?.(node, i);
      return node;
    });
    this.box.replaceChildren(...this.nodes);
    this.box.scrollTop = 0;
    this.mark();
    this.reveal();
  }

  /**
   * Choose a token without telling the host, as when another part of the view asks for it.
   * @param {number} i
   */
  choose(i) {
    this.chosen = i;
    this.hover = null;
    this.mark();
    this.reveal();
  }

  /** @param {number} i */
  pick(i) {
    if (i === this.chosen && this.hover === null) return;
    const other = i !== this.chosen;
    this.choose(i);
    if (other) this.host.choose(i);
    else this.host.point(null);
  }

  /** @param {number | null} i */
  point(i) {
    if (this.hover === i) return;
    this.hover = i;
    this.mark();
    this.host.point(i);
  }

  /**
   * Tint the tokens, from 0 to 1 each; null takes the tint away.
   * @param {ArrayLike<number> | null} values
   */
  tint(values) {
    for (const [i, node] of this.nodes.entries()) {
      if (values) node.style.setProperty("--share", String(values[i]));
      else node.style.removeProperty("--share");
    }
  }

  mark() {
    for (const [i, node] of this.nodes.entries()) {
      node.tabIndex = i === this.chosen ? 0 : -1;
      node.setAttribute("aria-pressed", String(i === this.chosen));
      node.classList.toggle("view-read", i === this.read);
    }
  }

  /** Scroll the row, never the page. */
  reveal() {
    const { box } = this;
    const node = this.nodes[this.chosen];
    if (!node) return;
    const below = node.offsetTop + node.offsetHeight - box.clientHeight;
    if (node.offsetTop < box.scrollTop) box.scrollTop = node.offsetTop;
    else if (below > box.scrollTop) box.scrollTop = below;
  }

  /**
   * @param {KeyboardEvent} event
   * @param {number} at
   */
  keys(event, at) {
    const rtl = getComputedStyle(this.box).direction === "rtl";
    /** @type {Record<string, number>} */
    const moves = { ArrowLeft: rtl ? at + 1 : at - 1, ArrowRight: rtl ? at - 1 : at + 1, Home: 0, End: this.nodes.length - 1 };
    const to = moves[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    this.nodes[to]?.focus();
  }
}
