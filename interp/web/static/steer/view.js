// Mounts the steer view: it takes payloads, perhaps fifty a second, and updates only what they change.
// A host calls mount(element, {select(index, value)}) and set(payload).

import { el } from "../shared/elements.js";
import { nats } from "../shared/figures.js";
import { page } from "../shared/page.js";
import { mounting, Shell } from "../shared/shell.js";
import { plural } from "../shared/text.js";
import { Answers } from "./answers.js";
import { SteerData } from "./data.js";
import { drawPush } from "./push.js";
import { Sweep } from "./sweep.js";
import { Tokens } from "./tokens.js";
import { Words } from "./words.js";

/** @extends {Shell<SteerData>} */
class View extends Shell {
  constructor(root, options) {
    super(root, options);
    const { part } = this;
    const { signal } = this.page;
    this.answers = new Answers(part, signal);
    this.tokens = new Tokens(part, { read: (i) => this.read(i), chosen: (i) => this.words.reveal(i) }, signal);
    this.words = new Words(
      part,
      {
        point: (i) => this.tokens.point(i),
        choose: (i) => this.tokens.choose(i),
        drawn: () => {
          this.words.mark(this.tokens.read);
          this.words.fit();
        },
      },
      this.serial,
      signal,
    );
    this.sweep = new Sweep(part, (index, value) => options.select?.(index, value), signal);
    this.set(null);
  }

  // Unlike the other views, this one keeps what the next payload does not change.
  set(payload) {
    if (!payload) return this.nothing("Nothing steered yet.");
    let data;
    try {
      data = new SteerData(payload);
    } catch (error) {
      return this.nothing(error.message, true);
    }
    const { part, root } = this;
    const before = this.data;
    this.data = data;
    part.empty.hidden = true;
    part.body.hidden = false;
    this.head();
    if (before?.done && data.state === "running") this.answers.hold();
    this.answers.show(data);
    if (data.done && data.key !== this.drawn) this.draw();
    if (data.state === "stopped") this.drawn = null;
    this.fresh(data.done);
    this.verdict();
    const kept = data.state === "running" && !data.sweep;
    part.sweepBox.inert = kept;
    if (!kept) this.sweep.show(data.sweep);
    this.announce(before);
    root.dataset.state = data.state;
    root.dataset.ready = "true";
    root.__steer = {
      ready: true,
      run: data.pair.run,
      state: data.state,
      changed: data.done ? data.changed : null,
      token: data.done ? this.tokens.read : null,
      sweep: data.sweep ? data.sweep.state : null,
    };
  }

  nothing(text, bad) {
    this.data = this.drawn = this.headKey = null;
    this.part.results.hidden = true;
    this.sweep.show(null);
    this.root.__steer = { ready: false };
    delete this.root.dataset.ready;
    delete this.root.dataset.state;
    this.message(text, bad);
  }

  head() {
    const {
      part,
      data: {
        pair: { model, prompt, settings, notes },
      },
    } = this;
    const key = JSON.stringify([model, prompt, settings, notes]);
    if (key === this.headKey) return;
    this.headKey = key;
    const sampled =
      settings.temperature > 0 ? `temperature ${settings.temperature}, seed ${settings.seed}, the same noise for both` : "greedy";
    part.prompt.textContent = prompt;
    part.facts.textContent = `${model} · ${sampled} · at most ${plural(settings.max_new_tokens, "token")}`;
    part.notes.replaceChildren(...notes.map((note) => el("span", "view-chip steer-warn", note)));
  }

  // The figures of a finished pair.
  draw() {
    const { part, data } = this;
    this.drawn = data.key;
    part.results.hidden = false;
    drawPush(part, data.pair);
    this.words.draw(data);
    this.tokens.draw(data);
    this.words.fit();
  }

  // While a new pair is answered, the figures of the previous one stay, dimmed and inert; `verdict` says whose they are. So does its sweep, unless
  // the payload brings one.
  fresh(now) {
    const { results } = this.part;
    results.hidden = !this.drawn;
    results.inert = !now;
    results.setAttribute("aria-busy", String(!now));
  }

  verdict() {
    const {
      part,
      data,
      data: { pair },
    } = this;
    const stale = this.drawn ? " The figures below are still from the previous run." : "";
    const texts = { running: `Answering …${stale}`, stopped: "Stopped before both answers were complete.", done: "" };
    let text = texts[data.state];
    if (data.done && !data.changed) {
      const most = Math.max(...pair.kl);
      text = `The edits changed no word. KL shows whether they changed anything at all: ${most > 0 ? `it is ${nats(most)} nats at most` : "it is 0 at every token"}.`;
    }
    if (part.verdict.textContent !== text) part.verdict.textContent = text;
  }

  // Read aloud that a run is over and its outcome, never single tokens.
  announce(before) {
    const { part, data } = this;
    const said = [];
    if (data.state !== "running" && data.key !== before?.key)
      said.push(data.done ? `Done. ${data.changed ? "The answer changed." : "The edits changed no word."}` : "Stopped.");
    if (data.sweep?.state === "done" && before?.sweep && before.sweep.state !== "done") said.push("The sweep is done.");
    if (said.length) part.live.textContent = said.join(" ");
  }

  read(token) {
    this.words.mark(token);
    if (this.root.__steer?.ready) this.root.__steer.token = token;
  }

  render(size = false) {
    if (size && this.drawn) this.words.fit();
  }
}

export const mount = mounting(View);

page.mountSteer = mount;
