// What every view needs before it shows anything: it follows the theme and the width, takes payloads and drops the previous one.
import { parts } from "./elements.js";
import { uniqueNumber } from "./page.js";

/** @typedef {HTMLElement & Record<string, any>} Root the element that holds a view; its state hangs on it for tests */

/**
 * Dark when an ancestor has the class "dark" (gradio), or in the standalone page when the system is dark; until `signal` aborts.
 * @param {HTMLElement} root
 * @param {boolean} followSystem
 * @param {() => void} changed
 * @param {AbortSignal} signal
 */
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

/**
 * A picture that a view draws: see `PatchCanvas`.
 * @typedef {{ load(): Promise<void>, fit(width: number, maxHeight: number, state: any, ratio: number): void }} Drawn
 */

/**
 * A view that has no payload yet. Subclasses add `render`.
 * @template D the decoded payload
 */
export class Shell {
  /**
   * @param {Root} root
   * @param {Record<string, any>} options what the host offers: callbacks and server functions
   */
  constructor(root, options) {
    this.root = root;
    this.options = options;
    this.data = /** @type {D | null} */ (null);
    this.part = parts(root);
    this.serial = uniqueNumber();
    this.page = new AbortController();
    followTheme(root, options.followSystem, () => this.render(), this.page.signal);
    this.resize = new ResizeObserver(() => this.render(true));
    this.resize.observe(this.part.frame);
  }

  /** Draw what has changed; `size`: the width may have changed too. */
  render(_size = false) {}

  destroy() {
    this.page.abort();
    this.resize.disconnect();
  }

  /** The colour of what is chosen. */
  accent() {
    return getComputedStyle(this.root).getPropertyValue("--accent").trim() || "#0b6bcb";
  }

  /**
   * Take what other views hand over by a DOM event on the document. Cancelling the event says that it was taken.
   * @param {string} name
   * @param {(detail: any) => void} take
   */
  takes(name, take) {
    const taken = (/** @type {Event} */ event) => {
      if (!this.root.isConnected) return this.destroy();
      event.preventDefault();
      take(/** @type {CustomEvent} */ (event).detail);
    };
    document.addEventListener(name, taken, { signal: this.page.signal });
  }

  /**
   * Show a sentence in place of the view.
   * @param {string} text
   */
  message(text, bad = false) {
    this.part.empty.textContent = text;
    this.part.empty.classList.toggle("view-bad", bad);
    this.part.empty.hidden = false;
    this.part.body.hidden = true;
  }
}

/**
 * What mounts a view on the element that holds its view.html, in place of one that is there; the host then calls set(payload).
 * @template {{ destroy(): void }} V
 * @param {new (root: Root, options: any) => V} View
 */
export function mounting(View) {
  return (/** @type {HTMLElement} */ element, options = {}) => {
    const root = /** @type {Root} */ (element.querySelector("[data-part=root]"));
    root.__view?.destroy();
    /** @type {V} */
    const view = new View(root, options);
    root.__view = view;
    return view;
  };
}

/**
 * A view of one picture: each payload replaces all of the one before. Subclasses add `begin` and `paint`.
 * @template D the decoded payload
 * @template {Drawn} P its picture
 * @extends {Shell<D>}
 */
export class PictureShell extends Shell {
  /**
   * @param {Root} root
   * @param {Record<string, any>} options
   * @param {{
   *   state: string,
   *   Data: new (payload: any) => D,
   *   Picture: new (data: D, base: HTMLCanvasElement, marks: HTMLCanvasElement) => P,
   *   empty: string,
   *   unreadable: string,
   * }} kind where the state hangs on the root, what reads and draws a payload, and what is said without one
   */
  constructor(root, options, kind) {
    super(root, options);
    this.kind = kind;
    /** @type {P | null} */
    this.picture = null;
    /** @type {any} */
    this.state = null;
    /** @type {Record<string, unknown[]>} */
    this.key = {};
    this.sized = false;
    this.frame = 0;
    /** @type {AbortController | null} */
    this.run = null;
  }

  /**
   * @param {D} _data
   * @param {P} _picture
   * @param {AbortSignal} _signal aborts when the next payload comes
   */
  begin(_data, _picture, _signal) {}

  /** Forget what belongs to the payload before. */
  clear() {
    this.data = this.picture = null;
  }

  /**
   * Show the view in place of the sentence; the state hangs on the root, for tests.
   * @param {D} data
   * @param {P} picture
   * @param {any} state
   */
  open(data, picture, state) {
    const { part } = this;
    Object.assign(this, { data, picture, state, key: {} });
    this.root[this.kind.state] = state;
    part.empty.hidden = true;
    part.body.hidden = false;
  }

  /** Whether all that `paint` needs is there. */
  get drawable() {
    return this.data !== null;
  }

  /** What follows from the state. Called at once, not in the frame: two keys in one frame are two steps. */
  derive() {}

  /** Bring every part up to date. Parts whose inputs have not changed are left alone. */
  paint() {}

  /** At most once a frame. */
  render(size = false) {
    if (!this.drawable) return;
    this.derive();
    this.sized = this.sized || size;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.drawable) this.paint();
    });
  }

  /**
   * Whether any of these inputs of a part differs from when it was painted last.
   * @param {string} name
   * @param {...unknown} inputs
   */
  changed(name, ...inputs) {
    const before = this.key[name];
    this.key[name] = inputs;
    return !before || inputs.some((value, i) => value !== before[i]);
  }

  /**
   * Fit the picture into its column and a share of the window's height: whether its size is new. Null in a tab that is not shown, where the
   * ResizeObserver calls again.
   * @param {number} share
   */
  fitted(share) {
    const { state, picture } = this;
    const width = this.part.frame.clientWidth;
    if (!width || !picture) return null;
    const fresh = this.changed("size", state.view, state.grid) || this.sized;
    this.sized = false;
    if (fresh) picture.fit(width, Math.max(260, innerHeight * share), state, Math.min(3, devicePixelRatio || 1));
    return fresh;
  }

  /**
   * Listen to a control, whenever there is something to draw.
   * @param {HTMLElement} node
   * @param {string} type
   * @param {(event: Event) => void} fn
   */
  listen(node, type, fn) {
    node.addEventListener(type, (event) => this.drawable && fn(event), { signal: this.page.signal });
  }

  /** In one column the picture is above what is chosen from: without this a tap there would change something out of sight. */
  reveal() {
    const { frame, title } = this.part;
    const { top, bottom } = frame.getBoundingClientRect();
    if (bottom > 40 && top < innerHeight - 40) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    title.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  }

  destroy() {
    this.run?.abort();
    super.destroy();
  }

  /**
   * Show a payload; null shows the empty state.
   * @param {any} payload
   */
  async set(payload) {
    const { kind, part } = this;
    this.run?.abort();
    this.run = new AbortController();
    const { signal } = this.run;
    this.clear();
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
      if (!signal.aborted) this.message(/** @type {Error} */ (error).message, true);
    }
  }
}
