// The server's key: asked for, and kept in this tab or, if wished, in this browser.

import { byId } from "./dom.js";

const KEY = "edge-llm.key";

export function keptKey() {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

let pending = null;

/** Ask for the key; resolves to null where it is not given. One question at a time. */
export function askKey(wrong) {
  pending ??= ask(wrong).finally(() => {
    pending = null;
  });
  return pending;
}

function ask(wrong) {
  const dialog = byId("key");
  const form = byId("key-form");
  byId("key-wrong").hidden = !wrong;
  form.key.value = "";
  return new Promise((resolve) => {
    let key = null;
    form.onsubmit = (event) => {
      event.preventDefault();
      key = form.key.value.trim();
      keep(key, form.keep.checked);
      dialog.close();
    };
    dialog.addEventListener("close", () => resolve(key), { once: true });
    dialog.showModal();
  });
}

function keep(key, lasting) {
  try {
    sessionStorage.setItem(KEY, key);
    if (lasting) localStorage.setItem(KEY, key);
    else localStorage.removeItem(KEY);
  } catch {
    // Then it holds until the page is closed.
  }
}
