// KL at each token of the plain answer: a row of tokens with bars, and the readout of the token that is pointed at or chosen.
// Calls host.read(i) for the token that is read and host.chosen(i) when one is chosen.
/** @import { SteerData } from "./data.js" */
import { el, tokenElement } from "../shared/elements.js";
import { look, plural } from "../shared/text.js";
import { fullScale } from "./data.js";
import * as say from "./text.js";

export class Tokens {
  constructor(part, host, signal) {
    this.part = part;
    this.host = host;
    this.nodes = [];
    this.chosen = 0;
    this.hover = null;
    const on = (type, fn) => part.tokens.addEventListener(type, fn, { signal });
    const at = (event) => this.nodes.indexOf(event.target.closest("button"));
    on("pointerover", (event) => {
      if (event.pointerType !== "touch" && at(event) >= 0) this.point(at(event));
    });
    on("pointerleave", () => this.point(null));
    on("click", (event) => {
      if (at(event) >= 0) this.choose(at(event));
    });
    on("focusin", (event) => {
      if (at(event) >= 0) this.choose(at(event));
    });
    on("keydown", (event) => this.keys(event, at(event)));
  }

  get read() {
    return this.hover ?? this.chosen;
  }

  /** @param {SteerData} data */
  draw(data) {
    const { part } = this;
    const { tokens, kl } = data.pair;
    const top = fullScale(kl);
    this.data = data;
    this.chosen = data.most;
    this.hover = null;
    this.nodes = tokens.map((text, i) => {
      const node = el("button", "steer-token"),
        bar = el("span", "steer-bar"),
        fill = el("i");
      const shown = look(text),
        end = i === data.end;
      node.type = "button";
      node.tabIndex = i === this.chosen ? 0 : -1;
      node.title = `${say.nats(kl[i])} nats${end ? ", the end of the answer" : ""}`;
      node.setAttribute("aria-label", `${end ? "end of the answer" : shown.text}: KL ${say.nats(kl[i])} nats`);
      fill.style.height = `${(100 * kl[i]) / top}%`;
      bar.append(fill);
      node.append(bar, tokenElement(end ? { ...shown, dim: true } : shown));
      return node;
    });
    part.tokens.replaceChildren(...this.nodes);
    part.tokens.scrollTop = 0;
    this.reveal();
    const most = el("span");
    most.append(
      `Mean ${say.nats(data.mean)} nats over ${plural(kl.length, "token")}; largest ${say.nats(kl[data.most])} at `,
      tokenElement(look(tokens[data.most])),
      `. A full bar is ${say.nats(top)} nats.`,
    );
    part.klSaid.replaceChildren(most);
    this.show();
  }

  point(i) {
    if (this.hover === i) return;
    this.hover = i;
    this.show();
  }

  choose(i) {
    this.nodes[this.chosen].tabIndex = -1;
    this.nodes[i].tabIndex = 0;
    this.chosen = i;
    this.hover = null;
    this.show();
    this.reveal();
    this.host.chosen(i);
  }

  // Scroll the row of tokens, never the page.
  reveal() {
    const box = this.part.tokens,
      node = this.nodes[this.chosen];
    const below = node.offsetTop + node.offsetHeight - box.clientHeight;
    if (node.offsetTop < box.scrollTop) box.scrollTop = node.offsetTop;
    else if (below > box.scrollTop) box.scrollTop = below;
  }

  keys(event, at) {
    const [next, previous] =
      getComputedStyle(this.part.tokens).direction === "rtl" ? ["ArrowLeft", "ArrowRight"] : ["ArrowRight", "ArrowLeft"];
    const to = { [previous]: at - 1, [next]: at + 1, Home: 0, End: this.nodes.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    this.nodes[to]?.focus();
  }

  show() {
    const {
      part,
      data: { pair, end },
      read,
    } = this;
    this.nodes.forEach((node, i) => {
      node.setAttribute("aria-pressed", String(i === this.chosen));
      node.classList.toggle("steer-read-now", i === read);
    });
    const token = tokenElement(look(pair.tokens[read]));
    part.here.replaceChildren(token, el("b", "", `KL ${say.nats(pair.kl[read])} nats`));
    part.herePlace.textContent = `token ${read + 1} of ${pair.tokens.length}${read === end ? ", the end of the answer" : ""}`;
    part.there.replaceChildren(
      ...pair.words.map(({ word, plain, steered }) => {
        const item = el("li");
        item.append(el("bdi", "", word), el("span", "", `${say.chance(plain[read])} → ${say.chance(steered[read])}`));
        return item;
      }),
    );
    this.host.read(read);
  }
}
