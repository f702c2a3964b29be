// The server, as the page uses it: the models, and a chat as a stream of chunks.

/** A reply that is an error. `status` 0: there was no reply. */
export class ApiError extends Error {
  constructor(status, message, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const UNREACHABLE = "The server cannot be reached.";
const BROKEN = "The connection broke before the answer was complete.";
const WAITS = [250, 500, 1000, 2000]; // milliseconds between two looks at a server that loads

export class Api {
  /** `askKey(wrong)` returns a key, when the server wants one; null gives up. */
  constructor(askKey, key) {
    this.key = key;
    this.askKey = askKey;
  }

  /** Return what `/v1/models` lists; `loading()` is called when the server asks to wait. */
  async models(loading) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const reply = await this.#fetch("v1/models", {});
        return (await reply.json()).data;
      } catch (error) {
        if (error.status !== 503) throw error;
        loading();
        await new Promise((done) => setTimeout(done, WAITS[Math.min(attempt, WAITS.length - 1)]));
      }
    }
  }

  /** Yield the chunks of a streamed chat. */
  async *chat(body, signal) {
    const reply = await this.#fetch("v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
      signal,
    });
    let ended = false;
    for await (const event of events(reply.body)) {
      if (event.data === "[DONE]") {
        ended = true;
        break;
      }
      const chunk = JSON.parse(event.data);
      if (event.name === "error" || chunk.error) throw failure(reply.status, chunk);
      yield chunk;
    }
    if (!ended) throw new ApiError(0, BROKEN);
  }

  async #fetch(path, options) {
    for (let wrong = false; ; wrong = true) {
      const headers = { ...options.headers };
      if (this.key) headers.authorization = `Bearer ${asBytes(this.key)}`;
      let reply;
      try {
        reply = await fetch(path, { ...options, headers, cache: "no-store" });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError(0, UNREACHABLE);
      }
      if (reply.ok) return reply;
      const error = failure(reply.status, await reply.json().catch(() => ({})));
      if (reply.status !== 401) throw error;
      const key = await this.askKey(wrong || Boolean(this.key));
      if (key === null) throw error;
      this.key = key;
      options.signal?.throwIfAborted();
    }
  }
}

/** Return a text as a header can carry it: a character for each byte of its UTF-8. */
function asBytes(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

function failure(status, body) {
  const message = body?.error?.message ?? `The server answered ${status}.`;
  return new ApiError(status, message, body?.error?.code ?? null);
}

/** Yield the server-sent events of a body: their names and data. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      let part;
      try {
        part = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError(0, BROKEN);
      }
      if (part.done) return;
      const blocks = (rest + part.value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = { name: "message", data: "" };
        for (const line of block.split("\n")) {
          if (line.startsWith("event: ")) event.name = line.slice(7);
          else if (line.startsWith("data: ")) event.data += line.slice(6);
        }
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
