// One message of a conversation on the page.

import { copyButton, el, icon, iconButton } from "./dom.js";
import { Markdown } from "./markdown.js";
import { count, figures, seconds, summary } from "./stats.js";

// Messages of people beyond this are folded: characters, and lines.
const LONG = 1500;
const LONG_LINES = 14;
const SHORT = 100; // milliseconds of thinking that are not worth telling
const ENDS = { length: "Cut at the longest answer.", stopped: "Stopped." };

/** The elements of one message. `actions` are what its buttons do: edit, regenerate, proceed, turn,
 *  results. `place` is where it stands: {index, count, last} among its siblings and in the branch. */
export class MessageView {
  constructor(message, place, actions) {
    this.message = message;
    this.place = place;
    this.actions = actions;
    this.body = el("div", { className: "body" });
    this.foot = el("footer");
    this.element = el(
      "article",
      { className: `message ${message.role}`, data: { id: message.id } },
      this.body,
      this.foot,
    );
    this.element.setAttribute("aria-label", NAMES[message.role]);
    if (message.role === "assistant") this.#prepareAnswer();
    else if (message.role === "user") this.#showUser();
    else this.#showResult();
  }

  /** Return whether these elements can stay where the message has another place. */
  canStand(place) {
    const { index, count: all } = this.place;
    return this.message.role === "assistant" || (index === place.index && all === place.count);
  }

  /** Show the message as it is now; `live`: it still grows. */
  update(live) {
    const { message } = this;
    if (message.role !== "assistant") return;
    this.element.classList.toggle("live", live);
    this.element.setAttribute("aria-busy", String(live));
    this.#showThinking(live);
    this.markdown.update(message.content);
    this.#showCalls(live);
    const waits = live && !message.content && !message.reasoning && !message.calls.length;
    this.waiting.hidden = !waits;
    if (live) this.foot.replaceChildren();
    else this.#finish();
  }

  // --- a person ---------------------------------------------------------------------------------

  #showUser() {
    const { message, actions } = this;
    const long = message.content.length > LONG || message.content.split("\n").length > LONG_LINES;
    const folded = long ? "bubble folded" : "bubble";
    const bubble = el("div", { className: folded, dir: "auto" }, message.content);
    const unfold = () => {
      button.textContent = bubble.classList.toggle("folded") ? "Show all" : "Show less";
    };
    const button = el("button", { type: "button", className: "text", onclick: unfold }, "Show all");
    this.body.replaceChildren(bubble);
    this.foot.replaceChildren(
      this.#turner() ?? "",
      long ? button : "",
      copyButton(() => message.content, "Copy"),
      iconButton("edit", "Edit", () => this.edit()),
    );
    this.edit = () => {
      const area = el("textarea", { value: message.content, rows: 3 });
      area.setAttribute("aria-label", "Edit the message");
      const cancel = () => this.#showUser();
      const send = () => {
        if (area.value.trim()) actions.edit(message, area.value.trim());
      };
      area.onkeydown = (event) => {
        if (event.key === "Escape") cancel();
        else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send();
        else return;
        event.preventDefault();
        event.stopPropagation();
      };
      const buttons = el(
        "div",
        { className: "row" },
        el("button", { type: "button", className: "text", onclick: cancel }, "Cancel"),
        el("button", { type: "button", className: "primary", onclick: send }, "Send"),
      );
      this.body.replaceChildren(el("div", { className: "editor" }, area, buttons));
      this.foot.replaceChildren();
      area.focus();
      area.setSelectionRange(area.value.length, area.value.length);
    };
  }

  // --- a tool -----------------------------------------------------------------------------------

  #showResult() {
    const text = this.message.content;
    const title = `Result${this.message.name ? ` of ${this.message.name}` : ""}`;
    this.body.replaceChildren(
      el(
        "details",
        { className: "card" },
        el("summary", {}, icon("result"), title),
        el("pre", { tabIndex: 0 }, text),
      ),
    );
  }

  // --- the model --------------------------------------------------------------------------------

  #prepareAnswer() {
    this.thoughts = el("div", { className: "prose" });
    this.thoughtsText = new Markdown(this.thoughts);
    this.thoughtsTitle = el("span");
    this.thinking = el(
      "details",
      { className: "thinking", hidden: true },
      el("summary", {}, icon("thought"), this.thoughtsTitle),
      this.thoughts,
    );
    const prose = el("div", { className: "prose" });
    this.markdown = new Markdown(prose);
    this.calls = el("div", { className: "calls" });
    this.waiting = el("div", { className: "waiting", hidden: true }, el("span"), el("span"), el("span"));
    this.waiting.setAttribute("aria-label", "Waiting for the answer");
    this.body.append(this.thinking, prose, this.calls, this.waiting);
  }

  #showThinking(live) {
    const { message } = this;
    this.thinking.hidden = !message.reasoning;
    if (!message.reasoning) return;
    this.thoughtsText.update(message.reasoning);
    const goesOn = live && !message.content && !message.calls.length;
    this.thinking.classList.toggle("live", goesOn);
    const tokens = message.usage?.completion_tokens_details?.reasoning_tokens;
    const took = message.thoughtFor >= SHORT ? ` for ${seconds(message.thoughtFor)}` : "";
    const size = Number.isFinite(tokens) && tokens > 0 ? ` · ${count(tokens)} tokens` : "";
    this.thoughtsTitle.textContent = goesOn ? "Thinking…" : `Thought${took}${size}`;
  }

  #showCalls(live) {
    const { calls, finish } = this.message;
    if (!calls.length) return;
    const cards = calls.map((call) =>
      el(
        "details",
        { className: "card call", open: true },
        el("summary", {}, icon("tool"), "Calls ", el("code", {}, call.name || "…")),
        el("pre", { tabIndex: 0 }, pretty(call.arguments)),
      ),
    );
    const asks = !live && this.place.last && finish === "tool_calls";
    this.calls.replaceChildren(...cards, asks ? this.#resultForm() : "");
  }

  /** Nothing runs a tool here: the person at the page says what came of it. */
  #resultForm() {
    const { message, actions } = this;
    const areas = message.calls.map((call) => {
      const area = el("textarea", { rows: 2, placeholder: `What ${call.name} returns` });
      area.setAttribute("aria-label", `Result of ${call.name}`);
      return area;
    });
    const form = el(
      "form",
      { className: "results" },
      ...areas,
      el("button", { type: "submit", className: "primary" }, "Send the result"),
    );
    form.onsubmit = (event) => {
      event.preventDefault();
      actions.results(
        message,
        areas.map((area) => area.value),
      );
    };
    return form;
  }

  #finish() {
    const { message, actions, place } = this;
    const again = () => actions.regenerate(message);
    const unfolded = this.foot.querySelector(".stats")?.open ?? false;
    const parts = [
      this.#turner(),
      message.content ? copyButton(() => message.content, "Copy the answer") : null,
      message.error
        ? el("button", { type: "button", className: "text", onclick: again }, "Try again")
        : iconButton("again", "Answer again", again),
    ];
    const cut = !["stop", "tool_calls"].includes(message.finish) && !message.error;
    if (cut && place.last && message.content && !message.calls.length) {
      const proceed = () => actions.proceed(message);
      parts.push(el("button", { type: "button", className: "text", onclick: proceed }, "Continue"));
    }
    const told = message.error ?? ENDS[message.finish] ?? (message.finish ? null : "Interrupted.");
    const notes = [];
    if (told) {
      const kind = message.error ? "error" : "note";
      notes.push(el("p", { className: kind, role: message.error ? "alert" : "note" }, told));
    } else if (!message.content && !message.calls.length) {
      notes.push(el("p", { className: "note", role: "note" }, "The model said nothing."));
    }
    const line = summary(message);
    const stats = line ? statistics(line, figures(message), unfolded) : null;
    this.foot.replaceChildren(
      ...notes,
      el("div", { className: "row" }, ...parts.filter(Boolean), stats),
    );
  }

  /** Return buttons to the other messages at this place, null if there are none. */
  #turner() {
    const { index, count: all } = this.place;
    if (all < 2) return null;
    const turn = (step) => () => this.actions.turn(this.message, step);
    const before = iconButton("left", "The version before", turn(-1));
    const after = iconButton("right", "The next version", turn(1));
    before.disabled = index === 0;
    after.disabled = index === all - 1;
    return el("span", { className: "turner" }, before, `${index + 1}/${all}`, after);
  }
}

const NAMES = { user: "You", assistant: "The model", tool: "A tool" };

function statistics(line, rows, open) {
  const cells = rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el("details", { className: "stats", open }, el("summary", {}, line), el("dl", {}, ...cells));
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}
