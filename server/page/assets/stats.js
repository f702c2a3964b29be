// What an answer took, in words: from `usage` and `timings` of its stream's last chunks.

const COUNT = new Intl.NumberFormat("en");

export const count = (value) => COUNT.format(value);
const tokens = (value) => `${count(value)} token${value === 1 ? "" : "s"}`;
const rate = (value) => `${value >= 100 ? count(Math.round(value)) : value.toFixed(1)} tokens/s`;

/** Return a time in words. */
export function seconds(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 1 : 0)} s`;
}

/** Return the line below an answer: what most people want to know. */
export function summary(message) {
  const { timings, usage } = message;
  const parts = [];
  const rate_ = number(timings, "decode_tokens_per_second");
  const first = number(timings, "time_to_first_token_ms");
  const prompt = number(usage, "prompt_tokens");
  const cached = number(usage?.prompt_tokens_details, "cached_tokens");
  if (rate_) parts.push(rate(rate_));
  if (number(usage, "completion_tokens")) parts.push(tokens(usage.completion_tokens));
  if (first !== null) parts.push(`first after ${seconds(first)}`);
  if (prompt && cached !== null) parts.push(`prompt ${Math.floor((100 * cached) / prompt)} % cached`);
  return parts.join(" · ");
}

/** Return all figures, as pairs of a name and a value. */
export function figures(message) {
  const { timings, usage } = message;
  const rows = [];
  const row = (name, value, form) => {
    if (value !== null) rows.push([name, form(value)]);
  };
  const timing = (name) => number(timings, name);
  const reasoning = number(usage?.completion_tokens_details, "reasoning_tokens");
  row("Prompt", number(usage, "prompt_tokens"), tokens);
  row("of it in the cache", timing("cached_tokens"), (value) => `${tokens(value)}${why(timings)}`);
  row("Answer", number(usage, "completion_tokens"), tokens);
  row("of it thinking", reasoning || null, tokens);
  row("Waited in the queue", timing("queue_ms"), seconds);
  row("Prompt read in", timing("prompt_ms"), seconds);
  row("Prompt speed", timing("prompt_tokens_per_second") || null, rate);
  row("First token after", timing("time_to_first_token_ms"), seconds);
  row("Answer written in", timing("decode_ms"), seconds);
  row("Answer speed", timing("decode_tokens_per_second") || null, rate);
  row("Memory read", timing("decode_gb_per_second") || null, (value) => `${value.toFixed(1)} GB/s`);
  row("Drafted", timing("drafted_tokens") || null, (value) => {
    return `${tokens(value)}, ${count(timing("accepted_tokens") ?? 0)} accepted`;
  });
  row("Longest answer cut to", timing("max_tokens_clipped"), tokens);
  if (message.model) rows.push(["Model", message.model]);
  return rows;
}

/** Return how many tokens of the context a conversation fills after a message, null if unknown. */
export function filled(message) {
  return number(message?.usage, "total_tokens");
}

function why(timings) {
  return typeof timings.cache === "string" ? ` (${timings.cache})` : "";
}

function number(object, name) {
  const value = object?.[name];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
