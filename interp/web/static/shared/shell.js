// What every view does before it shows anything: it follows the theme and the width, takes payloads, and drops the one before.
import { parts } from "./elements.js";
import { uniqueNumber } from "./page.js";

// Dark when an ancestor has the class "dark" (gradio); with no gradio, when the reader's system is dark. Until `signal` aborts.
export function followTheme(root, followSystem, changed, signal) {
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

// A view before it shows anything: it follows the theme and the width. A view adds `render(size)`.
export class Shell {
  constructor(root, options, kind) {
    this.root = root;
    this.options = options;
    this.kind = kind;
    this.data = null;
    this.part = parts(root);
    this.serial = uniqueNumber();
    this.page = new AbortController();
    followTheme(root, options.followSystem, () => this.render(), this.page.signal);
    this.resize = new ResizeObserver(() => this.render(true));
    this.resize.observe(this.part.frame);
  }

  // Draw what has changed; `size`: the width may have changed too.
  render(_size = false) {}

  destroy() {
    this.page.abort();
    this.resize.disconnect();
  }

  message(text, bad) {
    this.part.empty.textContent = text;
    this.part.empty.classList.toggle("view-bad", Boolean(bad));
    this.part.empty.hidden = false;
    this.part.body.hidden = true;
  }
}

// A view of one picture: each payload replaces all of the one before. A view adds `begin(data, picture, signal)`.
// `kind`: {state, Data, Picture, empty, unreadable}.
export class PictureShell extends Shell {
  begin(_data, _picture, _signal) {}

  destroy() {
    this.run?.abort();
    super.destroy();
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
      await picture.load().catch(() => {
        throw new Error(kind.unreadable);
      });
      if (!signal.aborted) this.begin(data, picture, signal);
    } catch (error) {
      if (!signal.aborted) this.message(error.message, true);
    }
  }
}
