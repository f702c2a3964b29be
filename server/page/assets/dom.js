// Elements by calls. Texts only ever become text nodes: nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element. `properties` are set as they are (className, onclick, …), but for `data` and
 *  `aria`, objects of attributes. Children are nodes or texts; empty ones are left out. */
export function el(tag, properties = {}, ...children) {
  const { data = {}, aria = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return one of the icons that index.html defines. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Return a button with an icon, named for readers of the screen and in its tip. */
export function iconButton(name, label, onclick, className = "icon") {
  const button = el("button", { type: "button", className, title: label, onclick }, icon(name));
  button.setAttribute("aria-label", label);
  return button;
}

export const byId = (id) => document.getElementById(id);

/** Put a text on the clipboard; return whether that worked. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // addresses without TLS have no clipboard of the newer kind
  }
}

function copyBySelection(text) {
  const area = el("textarea", { value: text, className: "offscreen", readOnly: true });
  const holder = document.querySelector("dialog[open]") ?? document.body;
  const before = document.activeElement;
  holder.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  return done;
}

/** Return a button that copies what `text` returns at that time, and says so for a moment. */
export function copyButton(text, label = "Copy", className = "icon") {
  const button = iconButton("copy", label, copy, className);
  async function copy() {
    const done = await copyText(text());
    button.replaceChildren(icon(done ? "check" : "cross"));
    button.dataset.state = done ? "copied" : "failed";
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      delete button.dataset.state;
    }, 1500);
  }
  return button;
}
