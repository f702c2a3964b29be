// A conversation is a tree of messages: an edit or another answer is a new branch beside the old
// one, which stays. `leaf` is the end of the branch that is shown.

export const newId = () => crypto.randomUUID?.() ?? fallbackId();

// Addresses without TLS have no randomUUID.
function fallbackId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return a conversation without messages. */
export function newConversation(settings) {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, settings, messages: {}, leaf: null };
}

/** Return the messages of the branch that is shown, from the first on. */
export function path(conversation, leaf = conversation.leaf) {
  const found = [];
  for (let id = leaf; id !== null; id = conversation.messages[id].parent) {
    found.push(conversation.messages[id]);
  }
  return found.reverse();
}

/** Add a message below `parent` (null: at the beginning) and show its branch; return it. */
export function add(conversation, parent, message) {
  const added = { ...message, id: newId(), parent, created: Date.now() };
  conversation.messages[added.id] = added;
  conversation.leaf = added.id;
  conversation.updated = added.created;
  return added;
}

/** Return the messages that stand at the same place, the oldest first. */
export function siblings(conversation, message) {
  return Object.values(conversation.messages)
    .filter((other) => other.parent === message.parent)
    .sort((a, b) => a.created - b.created);
}

/** Show the branch of a message, to the end of its newest continuation. */
export function show(conversation, message) {
  let shown = message;
  for (;;) {
    const below = Object.values(conversation.messages).filter((m) => m.parent === shown.id);
    if (below.length === 0) break;
    shown = below.reduce((a, b) => (b.created >= a.created ? b : a));
  }
  conversation.leaf = shown.id;
}

/** Return a title: the beginning of the first thing that was said. */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = path(conversation).find((message) => message.role === "user");
  const line = first?.content.trim().split("\n", 1)[0] ?? "";
  return line.length > 60 ? `${line.slice(0, 59)}…` : line || "New chat";
}
