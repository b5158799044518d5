// Elements, bars, switches and downloads.
// Text from a model, a prompt or a token is only ever set as textContent, so it cannot become markup.
/** @import { Look } from "./text.js" */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
export function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  if (text !== undefined) node.textContent = text;
  return node;
}

/**
 * A token with its leading space drawn: " dog" and "dog" are different tokens.
 * @param {Look} shown
 */
export function tokenElement(shown) {
  const node = el("span", shown.dim ? "view-token view-dim" : "view-token");
  if (shown.lead) node.append(el("i", "view-space", "␣"));
  node.append(document.createTextNode(shown.text));
  return node;
}

/**
 * Fill a list with rows of a name, a bar (its length from 0 to 1) and a number.
 * @param {HTMLElement} list
 * @param {[name: Node | string, share: number, number: string][]} rows
 */
export function barRows(list, rows) {
  while (list.children.length > rows.length) list.lastElementChild?.remove();
  while (list.children.length < rows.length) {
    const item = el("li"),
      back = el("span", "view-bar-back");
    back.append(el("i"));
    item.append(el("span", "view-word"), back, el("span", "view-percent"));
    list.append(item);
  }
  rows.forEach(([name, share, number], j) => {
    const [word, back, figure] = list.children[j].children;
    word.replaceChildren(name);
    /** @type {HTMLElement} */ (back.firstChild).style.width = `${Math.max(0.4, share * 100)}%`;
    figure.textContent = number;
  });
}

/**
 * The elements of a view by their data-part. What they are, view.html says.
 * @param {HTMLElement} root
 * @returns {Record<string, any>}
 */
export function parts(root) {
  const nodes = /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-part]"));
  return Object.fromEntries(Array.from(nodes, (node) => [node.dataset.part, node]));
}

/**
 * @template {string} K
 * @param {HTMLElement} box
 * @param {string} name
 * @param {readonly (readonly [K, string])[]} options
 * @param {K | null} value
 * @param {(key: K) => void} change
 */
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

/**
 * @param {Blob} blob
 * @param {string} name
 */
export function saveFile(blob, name) {
  const link = el("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
