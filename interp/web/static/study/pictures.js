// The top pictures of a feature, with its activation on the patches by the colour ramp.
/** @import { StudiedFeature, TopPicture } from "./data.js" */
import { ramp } from "../shared/colours.js";
import { el } from "../shared/elements.js";
import { amount } from "../shared/text.js";

const HEAT = 0.62;
const SIDE = 320; // pixels of the longer side, more than it is shown at

export class Pictures {
  /** @param {HTMLElement} box */
  constructor(box) {
    this.box = box;
    /** @type {{ canvas: HTMLCanvasElement, image: HTMLImageElement, one: TopPicture }[]} */
    this.shown = [];
  }

  /**
   * @param {StudiedFeature} feature
   * @param {boolean} heat whether the maps are drawn
   * @param {string} pool
   */
  show(feature, heat, pool) {
    this.most = feature.most;
    this.shown = feature.top.map((one) => {
      const canvas = el("canvas");
      const { width, height } = one.picture;
      const scale = SIDE / Math.max(width, height);
      canvas.width = Math.max(1, Math.round(width * scale));
      canvas.height = Math.max(1, Math.round(height * scale));
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${one.id}: ${pool} activation ${amount(one.score)}, on ${one.patches.length} patches`);
      const image = new Image();
      image.src = one.picture.src;
      return { canvas, image, one };
    });
    this.box.replaceChildren(
      ...this.shown.map(({ canvas, one }) => {
        const figure = el("figure");
        const caption = el("figcaption", "view-note", amount(one.score));
        caption.title = `${pool} activation on ${one.id}`;
        figure.append(canvas, caption);
        return figure;
      }),
    );
    return this.draw(heat);
  }

  /**
   * @param {boolean} heat
   * @returns {Promise<unknown>} when all are drawn; a damaged picture stays empty
   */
  draw(heat) {
    return Promise.allSettled(this.shown.map(({ canvas, image, one }) => image.decode().then(() => this.paint(canvas, image, one, heat))));
  }

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLImageElement} image
   * @param {TopPicture} one
   * @param {boolean} heat
   */
  paint(canvas, image, { picture, patches }, heat) {
    const { width, height } = canvas;
    const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    ctx.drawImage(image, 0, 0, width, height);
    if (!heat) return;
    // On a layer of its own: where patches of several grids overlap, the strongest one shows.
    const layer = el("canvas");
    Object.assign(layer, { width, height });
    const over = /** @type {CanvasRenderingContext2D} */ (layer.getContext("2d"));
    for (const { box, value } of patches) {
      const [l, t, r, b] = box.map((v, i) => Math.round((v * (i % 2 ? height : width)) / (i % 2 ? picture.height : picture.width)));
      over.fillStyle = `rgb(${ramp(value / this.most).join(",")})`;
      over.fillRect(l, t, r - l, b - t);
    }
    ctx.globalAlpha = HEAT;
    ctx.drawImage(layer, 0, 0);
    ctx.globalAlpha = 1;
  }
}
