// The picture with the maps of features on it: one feature by the colour ramp, several as layers of one colour each.
// Screen and PNG share the code.
/** @import { FeatureData } from "./data.js" */
import { PatchCanvas } from "../shared/canvas.js";
import { ramp } from "../shared/colours.js";

const HEAT = 0.66; // of one map; zero is not tinted at all
const LAYER = 0.85; // of a layer where its feature is highest

/** @extends {PatchCanvas<FeatureData>} */
export class FeaturePicture extends PatchCanvas {
  // state.maps: [{at, top, colour}]; top is the highest value on the picture, 0 where there is none
  paint(ctx, state, width, height) {
    this.background(ctx, state, width, height);
    const maps = state.maps.filter((map) => map.top > 0);
    if (maps.length) this.fade(ctx, width, height);
    const several = state.maps.length > 1;
    this.each(state, width, height, (row, _, x, y, w, h) => {
      for (const { at, top, colour } of maps) {
        if (!(at[row] > 0)) continue;
        const v = Math.min(1, at[row] / top);
        ctx.globalAlpha = several ? LAYER * v : HEAT;
        ctx.fillStyle = several ? colour : `rgb(${ramp(v).join(",")})`;
        ctx.fillRect(x, y, w, h);
      }
      ctx.globalAlpha = 1;
      this.edge(ctx, x, y, w, h);
    });
  }

  paintMarks(ctx, state, width, height, accent) {
    this.strokePlaces(ctx, state, width, height, accent);
    for (const [box, colour] of [
      [state.box, accent],
      [state.drawing, "#fff"],
    ]) {
      if (!box || box.grid !== state.grid) continue;
      const { cols } = this.data.grids[box.grid];
      const from = box.r0 * cols + box.c0,
        to = box.r1 * cols + box.c1;
      this.stroke(ctx, state, width, height, from, to, "rgba(0,0,0,.85)", 6, 0);
      this.stroke(ctx, state, width, height, from, to, colour, 3.5, 0);
    }
  }
}
