// Conversations in this browser (IndexedDB), the newest first, within bounds.

const DATABASE = "edge-llm";
const TABLE = "conversations";
export const MOST = 300; // conversations
export const MOST_BYTES = 32 * 1024 * 1024; // of their JSON, in UTF-16 units

/** The conversations of this browser. Where it keeps nothing, those of this page. */
export class Store {
  constructor(database) {
    this.database = database;
    this.sizes = new Map(); // JSON lengths by id
    this.all = new Map();
    this.channel = globalThis.BroadcastChannel ? new BroadcastChannel(DATABASE) : null;
  }

  /** Open the store; `lasting` is false where nothing will be kept. */
  static async open() {
    let store;
    try {
      store = new Store(await opened());
      for (const conversation of await store.#request("readonly", (table) => table.getAll())) {
        store.#remember(conversation);
      }
    } catch {
      store = new Store(null);
    }
    return store;
  }

  get lasting() {
    return this.database !== null;
  }

  /** Call `changed(id)` when another tab has written or removed a conversation. */
  watch(changed) {
    if (!this.channel) return;
    this.channel.onmessage = async ({ data }) => {
      const found = await this.#request("readonly", (table) => table.get(data.id));
      if (found) this.#remember(found);
      else this.#forget(data.id);
      changed(data.id);
    };
  }

  list() {
    return [...this.all.values()].sort((a, b) => b.updated - a.updated);
  }

  get(id) {
    return this.all.get(id) ?? null;
  }

  /** Keep a conversation; return those that had to go for it, the oldest ones. */
  async put(conversation) {
    this.#remember(conversation);
    const gone = [];
    for (const old of this.list().reverse()) {
      const bytes = [...this.sizes.values()].reduce((sum, size) => sum + size, 0);
      if (this.all.size <= MOST && bytes <= MOST_BYTES) break;
      if (old.id === conversation.id) continue;
      gone.push(old);
      await this.remove(old.id);
    }
    await this.#request("readwrite", (table) => table.put(conversation));
    this.channel?.postMessage({ id: conversation.id });
    return gone;
  }

  async remove(id) {
    this.#forget(id);
    await this.#request("readwrite", (table) => table.delete(id));
    this.channel?.postMessage({ id });
  }

  #remember(conversation) {
    this.all.set(conversation.id, conversation);
    this.sizes.set(conversation.id, JSON.stringify(conversation).length);
  }

  #forget(id) {
    this.all.delete(id);
    this.sizes.delete(id);
  }

  #request(mode, ask) {
    if (this.database === null) return Promise.resolve(undefined);
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(TABLE, mode);
      const request = ask(transaction.objectStore(TABLE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  }
}

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
