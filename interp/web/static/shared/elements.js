// Building blocks of the page: elements, bars, switches, downloads.
// Text from a model, a prompt or a token is only ever set as textContent, so it cannot become markup.

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// A token as it is: a leading space is drawn, because " dog" and "dog" are different tokens.
export function tokenElement(shown) {
  const node = el("span", shown.dim ? "view-token view-dim" : "view-token");
  if (shown.lead) node.append(el("i", "view-space", "␣"));
  node.append(document.createTextNode(shown.text));
  return node;
}

// Rows of a name, a bar and a number; `rows` is [[element or text, share of the bar 0..1, number as text]].
export function barRows(list, rows) {
  while (list.children.length > rows.length) list.lastChild.remove();
  while (list.children.length < rows.length) {
    const item = el("li");
    item.append(el("span", "view-word"), el("span", "view-bar-back"), el("span", "view-percent"));
    item.children[1].append(el("i"));
    list.append(item);
  }
  rows.forEach(([name, share, number], j) => {
    const [word, back, figure] = list.children[j].children;
    word.replaceChildren(name);
    back.firstChild.style.width = `${Math.max(0.4, share * 100)}%`;
    figure.textContent = number;
  });
}

export function parts(root) {
  const part = {};
  root.querySelectorAll("[data-part]").forEach((node) => {
    part[node.dataset.part] = node;
  });
  return part;
}

export function radios(box, name, options, value, change) {
  for (const node of box.querySelectorAll("label")) node.remove();
  for (const [key, text] of options) {
    const label = el("label"),
      input = el("input");
    Object.assign(input, { type: "radio", name, value: key, checked: key === value });
    input.addEventListener("change", () => change(key));
    label.append(input, el("span", "", text));
    box.append(label);
  }
}

export function saveFile(blob, name) {
  const link = el("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
