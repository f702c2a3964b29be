// An answer as it grows: what the chunks of a stream add to a message.

/** Return a message of the assistant that says nothing yet. */
export function emptyAnswer() {
  return { role: "assistant", content: "", reasoning: "", calls: [], finish: null };
}

/** Add a chunk to a message of the assistant. */
export function addChunk(message, chunk) {
  if (chunk.usage) message.usage = chunk.usage;
  if (chunk.timings) message.timings = chunk.timings;
  if (chunk.model) message.model = chunk.model;
  for (const choice of chunk.choices ?? []) {
    const delta = choice.delta ?? {};
    if (delta.content) message.content += delta.content;
    if (delta.reasoning_content) message.reasoning += delta.reasoning_content;
    for (const part of delta.tool_calls ?? []) {
      const call = (message.calls[part.index] ??= { id: "", name: "", arguments: "" });
      if (part.id) call.id = part.id;
      if (part.function?.name) call.name += part.function.name;
      if (part.function?.arguments) call.arguments += part.function.arguments;
    }
    if (choice.finish_reason) message.finish = choice.finish_reason;
  }
}

/** Return a message as the server takes it back in a history. */
export function asSent(message) {
  if (message.role === "tool") {
    return { role: "tool", tool_call_id: message.call, content: message.content };
  }
  const sent = { role: message.role, content: message.content };
  if (message.reasoning) sent.reasoning_content = message.reasoning;
  if (message.calls?.length) {
    sent.content = message.content || null;
    sent.tool_calls = message.calls.map((call) => ({
      id: call.id,
      type: "function",
      function: { name: call.name, arguments: call.arguments },
    }));
  }
  return sent;
}
