// The picture with one concept's map on it, by the colour ramp. Screen and PNG share the code.
/** @import { ConceptData } from "./data.js" */
import { PatchCanvas } from "../shared/canvas.js";
import { ramp } from "../shared/colours.js";

const HEAT = 0.66;

/** @extends {PatchCanvas<ConceptData>} */
export class ConceptPicture extends PatchCanvas {
  // state.concept: the one whose map is shown
  paint(ctx, state, width, height) {
    const { data } = this;
    const concept = data.concepts[state.concept];
    this.background(ctx, state, width, height);
    this.fade(ctx, width, height);
    this.each(state, width, height, (row, _, x, y, w, h) => {
      const v = data.share(concept, row);
      if (v > 0) {
        ctx.globalAlpha = HEAT;
        ctx.fillStyle = `rgb(${ramp(v).join(",")})`;
        ctx.fillRect(x, y, w, h);
        ctx.globalAlpha = 1;
      }
      this.edge(ctx, x, y, w, h);
    });
  }
}
