// The list of conversations: to open, name, export and delete one.

import { byId, el, iconButton } from "./dom.js";
import { titleOf } from "./tree.js";

const DAY = 24 * 60 * 60 * 1000;

/** Show a list of conversations. `actions`: open, rename, save, remove. */
export function showList(conversations, current, actions) {
  const wanted = byId("search").value.trim().toLowerCase();
  const shown = conversations.filter((conversation) => wanted === "" || has(conversation, wanted));
  const parts = [];
  let group = null;
  for (const conversation of shown) {
    const name = groupOf(conversation.updated);
    if (name !== group) parts.push(el("h3", {}, name));
    group = name;
    parts.push(item(conversation, conversation.id === current?.id, actions));
  }
  if (!parts.length) {
    parts.push(el("p", { className: "note" }, wanted ? "Nothing found." : "No conversations yet."));
  }
  byId("conversations").replaceChildren(...parts);
}

function item(conversation, current, actions) {
  const open = el(
    "button",
    { type: "button", className: "open", dir: "auto", onclick: () => actions.open(conversation) },
    titleOf(conversation),
  );
  if (current) open.setAttribute("aria-current", "page");
  const row = el("div", { className: "item" });
  const rename = () => row.replaceChildren(renamer(conversation, actions));
  row.append(
    open,
    iconButton("edit", "Rename", rename),
    iconButton("save", "Export", () => actions.save(conversation)),
    iconButton("bin", "Delete", () => actions.remove(conversation)),
  );
  return row;
}

function renamer(conversation, actions) {
  const input = el("input", { value: titleOf(conversation), maxLength: 200 });
  input.setAttribute("aria-label", "Name of the conversation");
  const finish = (name) => {
    input.onblur = null;
    actions.rename(conversation, name);
  };
  input.onblur = () => finish(input.value.trim());
  input.onkeydown = (event) => {
    if (event.key === "Enter") finish(input.value.trim());
    else if (event.key === "Escape") finish(conversation.title);
    event.stopPropagation();
  };
  setTimeout(() => input.select());
  return input;
}

function has(conversation, wanted) {
  if (titleOf(conversation).toLowerCase().includes(wanted)) return true;
  return Object.values(conversation.messages).some((message) =>
    message.content.toLowerCase().includes(wanted),
  );
}

function groupOf(time) {
  const today = new Date().setHours(0, 0, 0, 0);
  if (time >= today) return "Today";
  if (time >= today - DAY) return "Yesterday";
  return time >= today - 7 * DAY ? "Last 7 days" : "Earlier";
}
