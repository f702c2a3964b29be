// The page: one conversation at a time, and what its parts ask of each other.

import { asSent, emptyAnswer } from "./answer.js";
import { Api } from "./api.js";
import { Composer } from "./composer.js";
import { byId, el, icon } from "./dom.js";
import { askKey, keptKey } from "./key.js";
import { greeting, Log } from "./log.js";
import { notice } from "./notice.js";
import { Runs } from "./runs.js";
import { fieldsOf, keepSettings, lastSettings, openSettings, settingsOf } from "./settings.js";
import { showList } from "./sidebar.js";
import { count, filled } from "./stats.js";
import { Store } from "./store.js";
import { exportFile, imported, LONGEST_FILE } from "./transfer.js";
import { add, newConversation, newId, path, show, siblings, titleOf } from "./tree.js";

const narrow = matchMedia("(max-width: 760px)");
const store = await Store.open();
const api = new Api(askKey, keptKey());
const removed = new Set(); // ids
let models = [];
let current = store.get(location.hash.slice(1)) ?? newConversation(lastSettings());

const runs = new Runs(api, {
  grown: (conversation, message) => {
    if (conversation === current) log.update(message);
  },
  ended: (conversation, message) => {
    if (conversation === current) {
      log.update(message);
      byId("spoken").textContent = message.error ?? "The answer is complete.";
    }
    if (message.error) connect(); // another model may be served by now
    refresh();
  },
  save: keep,
});

const log = new Log(
  {
    edit: (message, text) => ask(message.parent, text),
    regenerate: (message) => answer(message.parent),
    proceed: (message) => goOn(message),
    turn: (message, step) => turn(message, step),
    results: (message, texts) => giveResults(message, texts),
  },
  (message) => runs.isLive(message),
);

const composer = new Composer({
  send: (text) => ask(current.leaf, text),
  stop: () => runs.stop(current),
  editLast: () => log.editLast(),
});

// --- talking ------------------------------------------------------------------------------------

function model() {
  return models.find((one) => one.id === current.settings.model) ?? models[0] ?? null;
}

/** Say something below a message (null: at the beginning), and let the model answer. */
function ask(parent, text) {
  const said = add(current, parent, { role: "user", content: text });
  return answer(said.id);
}

function giveResults(message, texts) {
  let parent = message.id;
  message.calls.forEach((call, index) => {
    const result = { role: "tool", call: call.id, name: call.name, content: texts[index] };
    parent = add(current, parent, result).id;
  });
  return answer(parent);
}

/** Let the model answer below a message. */
async function answer(parent) {
  const body = request(path(current, parent));
  if (!body) {
    log.show(current);
    refresh();
    return;
  }
  await run(add(current, parent, emptyAnswer()), body);
}

/** Let the model go on with an answer that was cut. */
async function goOn(message) {
  const body = request(path(current, message.id));
  if (body) await run(message, { ...body, continue_final_message: true });
}

async function run(message, body) {
  const started = runs.start(current, message, body);
  log.show(current);
  log.end();
  keep(current);
  refresh();
  await started;
}

/** Return the body of a request for the answer to some messages; null if the settings are wrong. */
function request(messages) {
  const { settings } = current;
  if (model() === null) {
    notice("There is no model yet.", ["Try again", connect]);
    return null;
  }
  try {
    const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
    const sent = [...system, ...messages.map(asSent)];
    return { model: model().id, messages: sent, ...fieldsOf(settings, model()) };
  } catch (error) {
    notice(error.message, ["Settings", settingsDialog]);
    return null;
  }
}

function turn(message, step) {
  const beside = siblings(current, message);
  show(current, beside[beside.indexOf(message) + step]);
  keep(current);
  log.show(current);
  refresh();
}

// --- conversations ------------------------------------------------------------------------------

async function keep(conversation) {
  if (conversation.leaf === null || removed.has(conversation.id)) return;
  try {
    const gone = await store.put(conversation);
    for (const old of gone) {
      notice(`There is no room for more: “${titleOf(old)}” was the oldest and is deleted.`, [
        "Export it",
        () => exportFile([old], titleOf(old)),
      ]);
    }
  } catch (error) {
    notice(`The conversation is not kept: ${error.message}`);
  }
}

function open(conversation) {
  current = conversation;
  history.replaceState(null, "", current.leaf === null ? "./" : `#${current.id}`);
  log.show(current);
  log.end();
  drawer(false);
  refresh();
  composer.focus();
}

function begin() {
  open(newConversation(lastSettings()));
}

const listActions = {
  open,
  save: (conversation) => exportFile([conversation], titleOf(conversation)),
  rename: (conversation, name) => {
    conversation.title = name;
    keep(conversation);
    refresh();
  },
  remove: async (conversation) => {
    removed.add(conversation.id); // an answer that is being made must not bring it back
    runs.stop(conversation);
    await store.remove(conversation.id);
    if (conversation === current) begin();
    refresh();
    notice(`“${titleOf(conversation)}” is deleted.`, [
      "Undo",
      () => {
        removed.delete(conversation.id);
        keep(conversation).then(() => open(conversation));
      },
    ]);
  },
};

async function importFile(file) {
  try {
    if (file.size > LONGEST_FILE) throw new Error("the file is too long");
    const found = imported(await file.text(), settingsOf);
    for (const conversation of found) {
      if (store.get(conversation.id) || removed.has(conversation.id)) conversation.id = newId();
      await keep(conversation);
    }
    notice(`${found.length} conversation${found.length === 1 ? "" : "s"} imported.`);
    if (found.length) open(found[0]);
  } catch (error) {
    notice(`Not imported: ${error.message}.`);
  }
}

// --- what is shown ------------------------------------------------------------------------------

/** Show what belongs to the conversation beside its messages. */
function refresh() {
  const running = runs.has(current);
  const able = model() !== null && model().capabilities?.chat !== false;
  if (current.leaf !== null) history.replaceState(null, "", `#${current.id}`);
  composer.state({ ready: able, running });
  document.title = current.leaf === null ? "edge-llm" : `${titleOf(current)} – edge-llm`;
  byId("title").textContent = titleOf(current);
  byId("empty").replaceChildren(...greeting(model()));
  showContext();
  showList(store.list(), current, listActions);
}

function showContext() {
  const last = path(current).findLast((message) => filled(message) !== null);
  const used = last ? filled(last) : null;
  const whole = model()?.context_length;
  byId("context").hidden = used === null || !whole;
  if (byId("context").hidden) return;
  const text = `${count(used)} of ${count(whole)} tokens`;
  byId("context-text").textContent = byId("context").title = text;
  byId("context-short").textContent = `${Math.round((100 * used) / whole)} %`;
  Object.assign(byId("context-meter"), { max: whole, value: used, high: 0.85 * whole });
}

function showModels() {
  const select = byId("model");
  select.replaceChildren(...models.map((one) => el("option", { value: one.id }, one.id)));
  select.value = model()?.id ?? "";
  select.disabled = models.length < 2;
}

async function connect() {
  const banner = (...parts) => {
    byId("banner").hidden = parts.length === 0;
    byId("banner").replaceChildren(...parts);
  };
  banner();
  try {
    models = await api.models(() => banner("The model is loading…"));
    banner();
  } catch (error) {
    const again = el("button", { type: "button", className: "text", onclick: connect }, "Try again");
    banner(el("span", {}, error.message), again);
  }
  showModels();
  refresh();
}

function settingsDialog() {
  openSettings(current.settings, model(), (settings) => {
    current.settings = settings;
    keepSettings(settings);
    keep(current);
    refresh();
  });
}

function drawer(shown) {
  document.body.classList.toggle("drawer", shown);
  byId("sidebar").inert = narrow.matches && !shown;
  byId("menu").setAttribute("aria-expanded", String(shown));
}

function showTheme() {
  const theme = globalThis.edgeTheme.current();
  const button = byId("theme");
  button.replaceChildren(icon(theme));
  button.title = `Colours: ${theme}`;
  button.setAttribute("aria-label", button.title);
}

// --- wiring -------------------------------------------------------------------------------------

byId("new").onclick = begin;
byId("new-small").onclick = begin;
byId("menu").onclick = () => drawer(!document.body.classList.contains("drawer"));
byId("shade").onclick = () => drawer(false);
byId("search").oninput = () => showList(store.list(), current, listActions);
byId("open-settings").onclick = settingsDialog;
byId("theme").onclick = () => (globalThis.edgeTheme.next(), showTheme());
byId("export").onclick = () => exportFile(store.list(), "edge-llm conversations");
byId("import").onclick = () => byId("file").click();
byId("file").onchange = async ({ target }) => {
  const [file] = target.files;
  if (file) await importFile(file);
  target.value = "";
};
byId("model").onchange = ({ target }) => {
  current.settings = { ...current.settings, model: target.value };
  keepSettings(current.settings);
  keep(current);
  refresh();
};
for (const button of document.querySelectorAll("[data-close]")) {
  button.onclick = () => button.closest("dialog").close();
}
narrow.onchange = () => drawer(false);
addEventListener("pagehide", () => {
  if (runs.has(current)) keep(current);
});
addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "Escape") {
    if (document.body.classList.contains("drawer")) drawer(false);
    else runs.stop(current);
  } else if (event.key?.toLowerCase() === "o" && event.shiftKey && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    begin();
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    byId("prompt").focus();
  }
});
store.watch((id) => {
  if (id === current.id && !runs.has(current)) {
    const found = store.get(id);
    if (found) {
      current = found;
      log.show(current);
    }
  }
  refresh();
});

showTheme();
drawer(false);
log.show(current);
log.end();
refresh();
if (!store.lasting) notice("This browser keeps nothing here. Export what you want to keep.");
composer.focus();
await connect();
