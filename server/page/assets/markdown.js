// Markdown as elements, from a text that may still grow.

import { blocks } from "./blocks.js";
import { codeBlock } from "./code.js";
import { el } from "./dom.js";
import { inline } from "./inline.js";

/** The elements of a text in `root`. What is before the last blocks is made once: a text that grows
 *  does not move what is read already, and costs no more the longer it is. */
export class Markdown {
  constructor(root) {
    this.root = root;
    this.text = "";
    this.settled = 0; // characters whose elements do not change any more
    this.kept = 0; // their number
  }

  /** Show a text. */
  update(text) {
    if (text === this.text) return;
    if (!text.startsWith(this.text)) this.settled = this.kept = 0;
    this.text = text;
    const rest = text.slice(this.settled);
    const found = blocks(rest);
    while (this.root.childNodes.length > this.kept) this.root.lastChild.remove();
    this.root.append(...found.map(element));
    this.#settle(rest, found);
  }

  /** Keep the blocks behind which another has begun, for certain: its first two lines are complete. */
  #settle(rest, found) {
    const starts = [0];
    for (let at = rest.indexOf("\n"); at >= 0; at = rest.indexOf("\n", at + 1)) starts.push(at + 1);
    const complete = starts.length - 1;
    let last = found.length - 1;
    while (last > 0 && found[last].line + 1 >= complete) last -= 1;
    if (last > 0) {
      this.settled += starts[found[last].line];
      this.kept += last;
    }
  }
}

function element(block) {
  switch (block.kind) {
    case "code":
      return codeBlock(block.text, block.language);
    case "math":
      return el("div", { className: "math" }, block.text);
    case "heading":
      // The page itself has the first two levels.
      return el(`h${Math.min(6, block.level + 2)}`, { dir: "auto" }, inline(block.text));
    case "rule":
      return el("hr");
    case "table":
      return tableElement(block);
    case "quote":
      return el("blockquote", { dir: "auto" }, ...block.blocks.map(element));
    case "list":
      return listElement(block);
    default:
      return el("p", { dir: "auto" }, inline(block.text));
  }
}

function listElement(block) {
  const items = block.items.map((item) => {
    const parts = item.blocks.flatMap((inner) => {
      const tight = inner.kind === "paragraph" && !block.loose;
      return tight ? [inline(inner.text)] : [element(inner)];
    });
    if (item.done === null) return el("li", { dir: "auto" }, ...parts);
    const box = el("input", { type: "checkbox", disabled: true, checked: item.done });
    return el("li", { className: "task", dir: "auto" }, box, ...parts);
  });
  if (!block.ordered) return el("ul", {}, ...items);
  return el("ol", { start: block.start }, ...items);
}

function tableElement(block) {
  const row = (tag, texts) =>
    el(
      "tr",
      {},
      ...texts.map((text, i) =>
        el(tag, { className: block.aligned[i], dir: "auto" }, inline(text)),
      ),
    );
  const head = el("thead", {}, row("th", block.head));
  const body = el("tbody", {}, ...block.rows.map((texts) => row("td", texts)));
  // A wide one moves sideways by itself, on a phone too.
  return el("div", { className: "table", tabIndex: 0 }, el("table", {}, head, body));
}
