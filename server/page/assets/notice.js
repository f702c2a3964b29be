// Short messages at the edge of the page.

import { byId, el, iconButton } from "./dom.js";

const SHOWN = 7000; // milliseconds

/** Show a message, with a button if `action` is [label, function]. */
export function notice(text, action = null) {
  const close = () => element.remove();
  const button =
    action &&
    el("button", { type: "button", className: "text", onclick: () => (close(), action[1]()) }, action[0]);
  const element = el(
    "div",
    { className: "notice" },
    el("span", {}, text),
    button,
    iconButton("cross", "Close", close),
  );
  byId("notices").append(element);
  setTimeout(close, SHOWN);
}
