// The settings of a conversation: their form, and what they put into a request.

import { byId, el } from "./dom.js";

const KEY = "edge-llm.settings";
const NUMBERS = {
  temperature: [0, 2],
  top_p: [0, 1],
  max_tokens: [1, 1_000_000],
  seed: [0, 2 ** 53 - 1],
};
const WHOLE = new Set(["max_tokens", "seed"]);
const THINKING = { default: "As the model does", on: "On", off: "Off" };

/** Return settings from what was kept or imported: what is none of ours falls to its default. */
export function settingsOf(given) {
  const settings = { model: null, system: "", thinking: "default", tools: "" };
  for (const name of Object.keys(NUMBERS)) settings[name] = null;
  for (const [name, value] of Object.entries(given ?? {})) {
    if (name in NUMBERS) settings[name] = inRange(name, value) ? value : null;
    else if (name in settings && typeof value === "string") settings[name] = value;
  }
  return settings;
}

/** Return the settings that a new conversation begins with: those of the last one. */
export function lastSettings() {
  try {
    return settingsOf(JSON.parse(localStorage.getItem(KEY)));
  } catch {
    return settingsOf({});
  }
}

export function keepSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // Then they hold for this conversation.
  }
}

/** Return the fields of a request that settings ask for; `model` is what `/v1/models` says of it. */
export function fieldsOf(settings, model) {
  const fields = {};
  for (const name of Object.keys(NUMBERS)) {
    if (settings[name] !== null) fields[name] = settings[name];
  }
  const can = model.capabilities ?? {};
  const { thinking } = settings;
  if (can.thinking_switch && (thinking === "on" || thinking === "off")) {
    fields.enable_thinking = thinking === "on";
  } else if (can.efforts?.includes(thinking)) {
    fields.reasoning_effort = thinking;
  }
  if (can.tools && settings.tools.trim()) fields.tools = toolsOf(settings.tools);
  return fields;
}

/** Return the tools of a JSON text; throws an Error that says what is wrong. */
function toolsOf(text) {
  let tools;
  try {
    tools = JSON.parse(text);
  } catch (error) {
    throw new Error(`The tools are not JSON: ${error.message}`);
  }
  if (!Array.isArray(tools)) throw new Error("The tools are no list: they begin with [.");
  return tools.map((tool) => (tool?.function ? tool : { type: "function", function: tool }));
}

/** Ask for settings; `done` gets the new ones. */
export function openSettings(settings, model, done) {
  const dialog = byId("settings");
  const form = byId("settings-form");
  const can = model?.capabilities ?? {};
  form.system.value = settings.system;
  for (const [name, [low, high]] of Object.entries(NUMBERS)) {
    const input = form[name];
    Object.assign(input, { min: low, max: high, step: WHOLE.has(name) ? 1 : "any" });
    input.value = settings[name] ?? "";
    const usual = model?.recommended?.[name];
    input.placeholder = usual === undefined ? input.dataset.usual : String(usual);
  }
  const choices = { ...(can.thinking_switch ? THINKING : { default: THINKING.default }) };
  for (const effort of can.efforts ?? []) choices[effort] = `Effort: ${effort}`;
  const options = Object.entries(choices).map(([value, label]) => el("option", { value }, label));
  form.thinking.replaceChildren(...options);
  form.thinking.value = settings.thinking in choices ? settings.thinking : "default";
  byId("thinking-row").hidden = !can.thinking || options.length < 2;
  form.tools.value = settings.tools;
  byId("tools-row").hidden = !can.tools;
  form.tools.oninput = () => form.tools.setCustomValidity("");
  form.onsubmit = (event) => {
    event.preventDefault();
    const problem = wrong(form.tools.value);
    form.tools.setCustomValidity(problem);
    if (problem) {
      byId("tools-row").open = true;
      form.tools.reportValidity();
      return;
    }
    const found = { model: settings.model };
    for (const name of Object.keys(NUMBERS)) {
      found[name] = form[name].value === "" ? null : form[name].valueAsNumber;
    }
    for (const name of ["system", "thinking", "tools"]) found[name] = form[name].value;
    dialog.close();
    done(settingsOf(found));
  };
  dialog.showModal();
}

function wrong(tools) {
  try {
    if (tools.trim()) toolsOf(tools);
    return "";
  } catch (error) {
    return error.message;
  }
}

function inRange(name, value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return false;
  const [low, high] = NUMBERS[name];
  return value >= low && value <= high && (!WHOLE.has(name) || Number.isInteger(value));
}
