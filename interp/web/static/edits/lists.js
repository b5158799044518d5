// Fills the lists around the edits: presets to start from, and edits published for other models.
import { el } from "../shared/elements.js";

export function presets(part, list) {
  part.presets.replaceChildren(
    ...list.map(({ name, note }, index) => {
      const node = el("button");
      Object.assign(node, { type: "button", title: note });
      node.dataset.index = index;
      node.append(el("span", "", name), el("small", "", note));
      return node;
    }),
  );
}

export function published(part, list) {
  part.publishedList.replaceChildren(
    ...list.map(({ model, text }) => {
      const item = el("li");
      item.append(el("b", "", model), ` ${text}`);
      return item;
    }),
  );
}
