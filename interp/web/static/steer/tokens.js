// KL at each token of the plain answer: a row of tokens with bars, and the readout of the token that is pointed at or chosen.
// Calls host.read(i) for the token that is read and host.chosen(i) when one is chosen.
/** @import { SteerData } from "./data.js" */
import { Chips } from "../shared/chips.js";
import { el, tokenElement } from "../shared/elements.js";
import { chance, nats } from "../shared/figures.js";
import { look, plural } from "../shared/text.js";
import { fullScale } from "./data.js";

export class Tokens {
  constructor(part, host, signal) {
    this.part = part;
    this.host = host;
    this.chips = new Chips(part.tokens, { point: () => this.show(), choose: (i) => this.chosen(i) }, signal);
  }

  get read() {
    return this.chips.read;
  }

  /** @param {SteerData} data */
  draw(data) {
    const { part } = this;
    const { tokens, kl } = data.pair;
    const top = fullScale(kl);
    this.data = data;
    this.chips.draw(tokens, {
      at: data.most,
      end: data.end,
      name: (shown, i) => `${shown.text}: KL ${nats(kl[i])} nats`,
      dress: (node, i) => {
        const bar = el("span", "steer-bar"),
          fill = el("i");
        node.title = `${nats(kl[i])} nats${i === data.end ? ", the end of the answer" : ""}`;
        fill.style.height = `${(100 * kl[i]) / top}%`;
        bar.append(fill);
        node.prepend(bar);
      },
    });
    const most = el("span");
    most.append(
      `Mean ${nats(data.mean)} nats over ${plural(kl.length, "token")}; largest ${nats(kl[data.most])} at `,
      tokenElement(look(tokens[data.most])),
      `. A full bar is ${nats(top)} nats.`,
    );
    part.klSaid.replaceChildren(most);
    this.show();
  }

  point(i) {
    this.chips.point(i);
  }

  choose(i) {
    this.chips.choose(i);
    this.chosen(i);
  }

  chosen(i) {
    this.show();
    this.host.chosen(i);
  }

  show() {
    const {
      part,
      data: { pair, end },
      read,
    } = this;
    const token = tokenElement(look(pair.tokens[read]));
    part.here.replaceChildren(token, el("b", "", `KL ${nats(pair.kl[read])} nats`));
    part.herePlace.textContent = `token ${read + 1} of ${pair.tokens.length}${read === end ? ", the end of the answer" : ""}`;
    part.there.replaceChildren(
      ...pair.words.map(({ word, plain, steered }) => {
        const item = el("li");
        item.append(el("bdi", "", word), el("span", "", `${chance(plain[read])} → ${chance(steered[read])}`));
        return item;
      }),
    );
    this.host.read(read);
  }
}
