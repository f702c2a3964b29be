// A block of code with its language and a button that copies it.

import { copyButton, el } from "./dom.js";
import { highlighted } from "./highlight.js";

/** Return the element of a block of code. */
export function codeBlock(text, language) {
  const name = el("span", { className: "language" }, language.slice(0, 24) || "text");
  const copy = copyButton(() => text, "Copy the code");
  const code = el("code", {}, ...highlighted(text, language));
  return el(
    "figure",
    { className: "code" },
    el("figcaption", {}, name, copy),
    el("pre", { tabIndex: 0 }, code),
  );
}
