// The official JavaScript client; the last version for Node 20. The servers are those of conftest.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const clientOf = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
const real = clientOf(process.env.EDGE_LLM_REAL);
const scripted = clientOf(process.env.EDGE_LLM_SCRIPTED);
const nameOf = async (client) => (await client.models.list()).data[0].id;
const City = z.object({ name: z.string(), people: z.number().int() });
const bonn = { name: "Bonn", people: 330000 };
const weather = {
  name: "get_weather",
  description: "The weather of a city.",
  strict: true,
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};

test("chat, whole and streamed", async () => {
  const request = {
    model: await nameOf(real),
    messages: [{ role: "user", content: "Say hi." }],
    max_tokens: 8,
    temperature: 0,
  };
  const whole = await real.chat.completions.create(request);
  let text = "";
  for await (const chunk of await real.chat.completions.create({ ...request, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, whole.choices[0].message.content);
  let streamed = "";
  const helper = real.chat.completions.stream(request);
  helper.on("content", (delta) => (streamed += delta));
  for await (const _ of helper);
  assert.equal(streamed, text);
});

test("chat, parsed", async () => {
  const reply = await real.chat.completions.parse({
    model: await nameOf(real),
    messages: [{ role: "user", content: "Answer in JSON." }],
    response_format: zodResponseFormat(City, "city"),
    temperature: 0,
    max_tokens: 200,
  });
  assert.equal(typeof reply.choices[0].message.parsed.people, "number");
});

test("chat, tools that the client runs", async () => {
  const runner = scripted.chat.completions.runTools({
    model: await nameOf(scripted),
    messages: [{ role: "user", content: "The weather in Bonn?" }],
    tools: [
      {
        type: "function",
        function: { ...weather, parse: JSON.parse, function: ({ city }) => `sun in ${city}` },
      },
    ],
  });
  assert.equal(await runner.finalContent(), "The result is sun in Bonn.");
});

test("chat, parsed calls", async () => {
  const reply = await scripted.chat.completions.parse({
    model: await nameOf(scripted),
    messages: [{ role: "user", content: "Tell me of Bonn." }],
    tools: [zodFunction({ name: "city", parameters: City })],
  });
  assert.deepEqual(reply.choices[0].message.tool_calls[0].function.parsed_arguments, bonn);
});

test("completions", async () => {
  const reply = await real.completions.create({
    model: await nameOf(real),
    prompt: "One, two,",
    max_tokens: 4,
    temperature: 0,
  });
  assert.ok(reply.choices[0].text);
});

test("embeddings", async () => {
  const reply = await real.embeddings.create({ model: await nameOf(real), input: ["a", "b"] });
  assert.equal(reply.data.length, 2);
  assert.ok(reply.data[0].embedding.length > 8);
});

test("responses, whole and streamed, by the id of the one before", async () => {
  const model = await nameOf(scripted);
  const first = await scripted.responses.create({ model, input: "The capital of France?" });
  assert.equal(first.output_text, "Paris");
  const stream = scripted.responses.stream({
    model,
    input: "The capital of France? Think step by step.",
    previous_response_id: first.id,
  });
  const kinds = [];
  for await (const event of stream) kinds.push(event.type);
  assert.equal(kinds.at(-1), "response.completed");
  assert.ok(kinds.includes("response.reasoning_text.delta"));
  assert.equal((await stream.finalResponse()).output_text, "Paris");
});

test("responses, parsed", async () => {
  const reply = await scripted.responses.parse({
    model: await nameOf(scripted),
    input: "Tell me of Bonn.",
    text: { format: zodTextFormat(City, "city") },
  });
  assert.deepEqual(reply.output_parsed, bonn);
});

test("responses, a loop of tools", async () => {
  const model = await nameOf(scripted);
  const tools = [{ type: "function", ...weather }];
  const first = await scripted.responses.create({ model, tools, input: "The weather in Bonn?" });
  const call = first.output.find((item) => item.type === "function_call");
  const second = await scripted.responses.create({
    model,
    tools,
    previous_response_id: first.id,
    input: [{ type: "function_call_output", call_id: call.call_id, output: "sun" }],
  });
  assert.equal(second.output_text, "The result is sun.");
});

test("errors", async () => {
  const model = await nameOf(real);
  const messages = [{ role: "user", content: "hi" }];
  await assert.rejects(real.chat.completions.create({ model: "no-such", messages }), {
    status: 404,
    code: "model_not_found",
  });
  await assert.rejects(real.chat.completions.create({ model, messages, temperature: 3 }), {
    status: 400,
    param: "temperature",
  });
});
