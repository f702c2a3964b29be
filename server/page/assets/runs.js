// Answers that are being made: at most one a conversation, also while another one is shown.

import { addChunk } from "./answer.js";

const SAVE_EVERY = 1500; // milliseconds

export class Runs {
  /** `grown(conversation, message)` is called at most once a frame, `ended` after the last time;
   *  `save(conversation)` keeps it. */
  constructor(api, { grown, ended, save }) {
    this.api = api;
    this.grown = grown;
    this.ended = ended;
    this.save = save;
    this.running = new Map();
  }

  has(conversation) {
    return this.running.has(conversation.id);
  }

  isLive(message) {
    return [...this.running.values()].some((run) => run.message === message);
  }

  stop(conversation) {
    this.running.get(conversation.id)?.controller.abort();
  }

  /** Let an answer grow until it is complete, stopped or failed; the one before it is stopped. */
  async start(conversation, message, body) {
    this.stop(conversation);
    const controller = new AbortController();
    const run = { message, controller };
    this.running.set(conversation.id, run);
    delete message.error;
    message.finish = null;
    this.grown(conversation, message);
    const show = this.#framed(() => this.grown(conversation, message));
    let saved = performance.now();
    let thinkingSince = null;
    try {
      for await (const chunk of this.api.chat(body, controller.signal)) {
        addChunk(message, chunk);
        const now = performance.now();
        if (message.reasoning) thinkingSince ??= now;
        if (thinkingSince !== null && message.thoughtFor === undefined) {
          if (message.content || message.calls.length) message.thoughtFor = now - thinkingSince;
        }
        if (now - saved > SAVE_EVERY) {
          saved = now;
          this.save(conversation);
        }
        show();
      }
      message.finish ??= "stop";
    } catch (error) {
      message.finish = "stopped";
      if (error.name !== "AbortError") message.error = error.message;
    } finally {
      if (this.running.get(conversation.id) === run) this.running.delete(conversation.id);
      conversation.updated = Date.now();
      this.save(conversation);
      this.ended(conversation, message);
    }
  }

  /** Return a function that calls another at most once a frame, and not at all once it has ended. */
  #framed(call) {
    let asked = false;
    return () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        call();
      });
    };
  }
}
