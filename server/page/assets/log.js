// The messages of the conversation that is shown, and where they are scrolled to.

import { byId, el } from "./dom.js";
import { MessageView } from "./message.js";
import { path, siblings } from "./tree.js";

const NEAR = 80; // pixels from the end that count as its end

export class Log {
  /** `actions` are those of MessageView; `isLive(message)` tells whether one still grows. */
  constructor(actions, isLive) {
    this.root = byId("log");
    this.list = byId("messages");
    this.toEnd = byId("to-end");
    this.actions = actions;
    this.isLive = isLive;
    this.views = new Map();
    this.pinned = true;
    this.root.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.toEnd.onclick = () => this.end();
    new ResizeObserver(() => this.#follow()).observe(this.list);
    new ResizeObserver(() => this.#follow()).observe(this.root);
  }

  /** Show the branch of a conversation. What is shown already stays as it is, unfolded or not. */
  show(conversation) {
    const messages = path(conversation);
    const before = this.views;
    this.views = new Map();
    const elements = messages.map((message, index) => {
      const beside = siblings(conversation, message);
      const place = {
        index: beside.indexOf(message),
        count: beside.length,
        last: index === messages.length - 1,
      };
      const kept = before.get(message.id);
      const same = kept?.message === message && kept.canStand(place);
      const view = same ? kept : new MessageView(message, place, this.actions);
      view.place = place;
      view.update(this.isLive(message));
      this.views.set(message.id, view);
      return view.element;
    });
    this.list.replaceChildren(...elements);
    byId("empty").hidden = messages.length > 0;
  }

  /** Show a message as it is now. */
  update(message) {
    this.views.get(message.id)?.update(this.isLive(message));
    this.#follow();
  }

  /** Change the last message of a person. */
  editLast() {
    const last = [...this.views.values()].reverse().find((view) => view.edit);
    last?.edit();
    last?.element.scrollIntoView({ block: "nearest" });
  }

  /** Scroll to the end, and stay there. */
  end() {
    this.pinned = true;
    this.#follow();
  }

  #follow() {
    if (this.pinned) this.root.scrollTop = this.root.scrollHeight;
    this.#mark();
  }

  #scrolled() {
    this.pinned = this.#below() < NEAR;
    this.#mark();
  }

  #mark() {
    this.toEnd.hidden = this.pinned || this.#below() < NEAR;
  }

  #below() {
    return this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight;
  }
}

/** Return what an empty conversation shows: who is there to talk to. */
export function greeting(model) {
  if (!model) return [];
  const can = model.capabilities ?? {};
  const facts = [`${new Intl.NumberFormat("en").format(model.context_length)} tokens of context`];
  if (can.thinking) facts.push("thinks");
  if (can.tools) facts.push("calls tools");
  const parts = [
    el("h2", {}, model.id),
    el("p", {}, facts.join(" · ")),
    el("p", { className: "note" }, "What is said here stays between this browser and the server."),
  ];
  if (can.chat === false) {
    parts.push(el("p", { className: "error" }, "This program has no chat template: it cannot chat."));
  }
  return parts;
}
