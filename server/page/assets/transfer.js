// Conversations as JSON files, out and in. What comes in is checked: it may be from anybody.

import { newId } from "./tree.js";

const FORMAT = "edge-llm-conversations";
const VERSION = 1;
const ROLES = ["user", "assistant", "tool"];
export const LONGEST_FILE = 64 * 1024 * 1024; // bytes

/** Let the browser save conversations as a file. */
export function exportFile(conversations, name) {
  const document_ = { format: FORMAT, version: VERSION, conversations };
  const blob = new Blob([JSON.stringify(document_, null, 1)], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60) || "chat"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Return the conversations of a file.
 *
 *  Throws an Error that says what is wrong with it. */
export function imported(text, settingsOf) {
  let document_;
  try {
    document_ = JSON.parse(text);
  } catch {
    throw new Error("the file is not JSON");
  }
  if (document_?.format !== FORMAT) throw new Error("the file has no conversations of this page");
  if (document_.version !== VERSION) {
    throw new Error(`the file has version ${Number(document_.version)}, this page reads ${VERSION}`);
  }
  if (!Array.isArray(document_.conversations)) throw new Error("the file has no conversations");
  return document_.conversations.map((conversation, index) => {
    try {
      return conversationOf(conversation, settingsOf);
    } catch (error) {
      throw new Error(`conversation ${index + 1}: ${error.message}`);
    }
  });
}

function conversationOf(given, settingsOf) {
  need(isObject(given) && isObject(given.messages), "it has no messages");
  const messages = {};
  for (const [id, message] of Object.entries(given.messages)) {
    need(/^[A-Za-z0-9-]{1,64}$/.test(id), "a message's id is none of ours");
    messages[id] = messageOf(id, message);
  }
  const conversation = {
    id: /^[A-Za-z0-9-]{1,64}$/.test(given.id) ? given.id : newId(),
    title: text(given.title ?? "", "title", 200),
    created: moment(given.created),
    updated: moment(given.updated),
    settings: settingsOf(given.settings),
    messages,
    leaf: given.leaf ?? null,
  };
  need(conversation.leaf === null || Object.hasOwn(messages, conversation.leaf), "its end is missing");
  checkTree(messages);
  return conversation;
}

function messageOf(id, given) {
  need(isObject(given) && ROLES.includes(given.role), "a message has no role of ours");
  const message = {
    id,
    parent: given.parent ?? null,
    created: moment(given.created),
    role: given.role,
    content: text(given.content ?? "", "content"),
  };
  if (given.role === "tool") message.call = text(given.call ?? "", "call", 200);
  if (given.role !== "assistant") return message;
  message.reasoning = text(given.reasoning ?? "", "reasoning");
  message.finish = given.finish === null ? null : text(given.finish ?? "stop", "finish", 40);
  need(Array.isArray(given.calls ?? []), "calls are no list");
  message.calls = (given.calls ?? []).map((call) => ({
    id: text(call?.id ?? "", "a call's id", 200),
    name: text(call?.name ?? "", "a call's name", 200),
    arguments: text(call?.arguments ?? "", "a call's arguments"),
  }));
  for (const name of ["model", "error"]) {
    if (given[name]) message[name] = text(given[name], name, 2000);
  }
  for (const name of ["usage", "timings"]) {
    if (isObject(given[name])) message[name] = given[name]; // read as numbers, one by one
  }
  if (Number.isFinite(given.thoughtFor)) message.thoughtFor = given.thoughtFor;
  return message;
}

/** Every parent is there, and following them comes to a beginning. */
function checkTree(messages) {
  const good = new Set([null]);
  for (const id of Object.keys(messages)) {
    const way = new Set();
    for (let at = id; !good.has(at); at = messages[at].parent) {
      need(Object.hasOwn(messages, at) && !way.has(at), "its messages are no tree");
      way.add(at);
    }
    way.forEach((at) => good.add(at));
  }
}

function text(value, name, longest = Infinity) {
  need(typeof value === "string", `${name} is no text`);
  need(value.length <= longest, `${name} is too long`);
  return value;
}

const moment = (value) => (Number.isFinite(value) ? value : Date.now());
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function need(good, message) {
  if (!good) throw new Error(message);
}
