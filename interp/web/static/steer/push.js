// How far each edit pushed the model, with a warning where size alone can explain a changed answer.
// It cannot tell whether a push in another direction would have done the same.

import { el } from "../shared/elements.js";
import { plural, share } from "../shared/text.js";
import * as say from "./text.js";

const LARGE = 0.5,
  HUGE = 1; // |Δh| / |h|

function remark({ unit, absolute, relative }) {
  if (absolute === 0) return unit === "target" ? "Nothing changed: the feature had this value already." : "Nothing was added.";
  if (relative >= HUGE)
    return "The change is longer than the state it was added to. Such a push breaks most answers, whatever its direction.";
  if (relative >= LARGE) return "A push this large changes most answers, whatever its direction.";
  return "";
}

function line(edit) {
  const item = el("li", edit.relative >= HUGE ? "steer-huge" : edit.relative >= LARGE ? "steer-large" : "");
  const name = el("p", "steer-name");
  name.append(el("bdi", "", say.name(edit)));
  if (edit.feature !== null && edit.label) name.append(" ", el("span", "steer-number", `#${edit.feature}`));
  const where = `${edit.where}, ${plural(edit.fired, "position")}`;
  const facts = el("p", "steer-facts");
  facts.append(el("b", "", `${edit.unit} ${say.value(edit.unit, edit.value)}`), ` · layer ${edit.layer} · `, el("bdi", "", where));
  if (edit.sae) facts.append(" · ", el("bdi", "", edit.sae));
  const size = el("p", "steer-size");
  const bar = el("span", "view-bar-back"),
    fill = el("i");
  fill.style.width = `${Math.min(1, edit.relative) * 100}%`;
  bar.append(fill);
  size.append(el("span", "", `|Δh| ${say.size(edit.absolute)}`), bar, el("b", "", `${share(edit.relative)} of |h|`));
  item.append(name, facts, size);
  const said = remark(edit);
  if (said) item.append(el("p", "steer-remark", said));
  return item;
}

export function drawPush(part, { edits }) {
  part.edits.replaceChildren(...edits.map(line));
}
