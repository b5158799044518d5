// The switch between lenses: asks the server once for each, then shows what it has. One entry may be the activation map, which is no lens.
/** @import { LensMethod } from "../payloads.js" */
/** @import { LensData } from "./data.js" */
import { Asker } from "../shared/asker.js";
import { radios } from "../shared/elements.js";

/** @type {LensMethod} */
export const ACTIVATION_MAP = {
  key: "activation_map",
  name: "Activation map",
  about:
    "Not a lens: which patches would say one word of the answer themselves in the last layer, less what earlier words explain (TAM, Li et al. 2025). " +
    "Choose the word. “Why this word?” tests such maps.",
};
const SILENCE = "The server could not read with this lens. Press Run and try again.";

/**
 * `read(method)` asks the server, null in a file without one; `show(data)` shows what another lens reads, `map()` the activation map.
 * @typedef {{ read: ((method: string) => any) | null, show(data: LensData): void, map(): void }} MethodsHost
 */
export class Methods {
  /**
   * @param {LensData} data the run as it opens
   * @param {Record<string, any>} part
   * @param {MethodsHost} host
   * @param {{ name: string, map: boolean, signal: AbortSignal }} how the name of the radio buttons, and whether there is an activation map
   */
  constructor(data, part, host, { name, map, signal }) {
    this.part = part;
    this.host = host;
    this.shown = data.method;
    this.asker = new Asker(signal);
    /** @type {Map<string, LensData>} */
    this.kept = new Map([[data.method, data]]);
    for (const other of data.payload.others) this.kept.set(other.method, data.through(other));
    this.first = data;
    const readable = data.payload.methods.filter(({ key }) => host.read || this.kept.has(key));
    this.methods = map ? [...readable, ACTIVATION_MAP] : readable;
    /** @type {[string, string][]} */
    const named = this.methods.map(({ key, name: text }) => [key, text]);
    radios(part.method, name, named, this.shown, (key) => this.choose(key));
    part.method.hidden = named.length < 2;
    part.missing.textContent = data.payload.missing;
    part.missingBox.hidden = !data.payload.missing || !host.read;
    this.describe();
  }

  /** The lenses that were read so far. */
  get read() {
    return [...this.kept.keys()];
  }

  /** The name of what is shown. */
  get name() {
    return this.methods.find(({ key }) => key === this.shown)?.name ?? "Lens";
  }

  describe(said = "", bad = false) {
    const { part } = this;
    part.about.textContent = this.methods.find(({ key }) => key === this.shown)?.about ?? "";
    part.methodNote.textContent = said;
    part.methodNote.classList.toggle("view-bad", bad);
    part.method.setAttribute("aria-busy", String(Boolean(said) && !bad));
    for (const input of part.method.querySelectorAll("input"))
      input.checked = input.value === (bad ? this.shown : (this.asked ?? this.shown));
  }

  /** @param {string} key */
  async choose(key) {
    this.asker.cancel("lens");
    this.asked = key;
    if (key === ACTIVATION_MAP.key || this.kept.has(key)) return this.show(key);
    const { read } = this.host;
    if (!read) return;
    const name = this.methods.find((method) => method.key === key)?.name ?? key;
    this.describe(`Reading with the ${name.toLowerCase()} …`);
    const out = await this.asker.ask("lens", () => read(key), SILENCE);
    if (!out) return;
    try {
      if (out.error !== undefined) throw new Error(out.error);
      this.kept.set(key, this.first.through(out.answer));
    } catch (error) {
      this.asked = undefined;
      return this.describe(/** @type {Error} */ (error).message, true);
    }
    this.show(key);
  }

  /** @param {string} key */
  show(key) {
    this.shown = key;
    this.asked = undefined;
    this.describe();
    const data = this.kept.get(key);
    if (data) this.host.show(data);
    else this.host.map();
  }
}
