// The Markdown within a line: emphasis, code, links. Builds nodes; a text only becomes text.
//
// Every step is linear in the text, and nesting is bounded, whatever a model writes.

import { el } from "./dom.js";

const ESCAPABLE = /[!-/:-@[-`{-~]/; // ASCII punctuation
const ADDRESS = /https?:\/\/[^\s<>"`]+/y;
const ANGLED = /<(https?:\/\/[^\s<>]+)>/y;
const SPECIAL = /[\\`*_~[\]!<h\n$]/g;
const WORD = /[\p{L}\p{N}]/u;
const SPACE = /\s/u;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const OPEN_AT_ONCE = 24; // delimiters and brackets that may wait for their end
const LONGEST_RUN = 3;
const TAGS = { "*": ["em", "strong"], _: ["em", "strong"], "~": ["del", "del"] };

/** Return a fragment of a text's nodes. */
export function inline(text) {
  return new Inline(text).run();
}

/** Return the address if a link may lead there, else null: scripts and files may not. */
export function safeAddress(text) {
  const address = text.trim();
  if (!/^(https?:\/\/|mailto:)[^\s]/i.test(address)) return null;
  return URL.canParse(address) ? address : null;
}

class Inline {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.root = document.createDocumentFragment();
    this.plain = ""; // text that is not a node yet
    this.delimiters = [];
    this.brackets = [];
    this.ticks = null; // by length: where runs of backticks begin
    this.missing = new Set(); // ends that do not come any more
    this.lastTarget = text.lastIndexOf("](");
  }

  run() {
    const { text } = this;
    while (this.at < text.length) {
      SPECIAL.lastIndex = this.at;
      const found = SPECIAL.exec(text);
      const next = found ? found.index : text.length;
      this.plain += text.slice(this.at, next);
      this.at = next;
      if (found && !this.special(found[0])) {
        this.plain += found[0];
        this.at += 1;
      }
    }
    this.flush();
    this.emphasize(0);
    this.root.normalize();
    return this.root;
  }

  /** Read what begins with a special character; return whether it was more than that. */
  special(character) {
    switch (character) {
      case "\n":
        this.append(el("br"));
        this.at += 1;
        return true;
      case "\\":
        return this.escape();
      case "`":
        return this.code();
      case "$":
        return this.math("$$", "$$");
      case "<":
        return this.angled();
      case "h":
        return this.bare();
      case "!":
        if (this.text[this.at + 1] !== "[") return false;
        this.at += 1; // an image is told as a link: nothing is fetched for a model
        return this.bracket();
      case "[":
        return this.bracket();
      case "]":
        return this.link();
      default:
        return this.delimiter(character);
    }
  }

  flush() {
    if (this.plain) this.root.append(this.plain);
    this.plain = "";
  }

  append(node) {
    this.flush();
    this.root.append(node);
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next === "(" && this.math("\\(", "\\)")) return true;
    if (next === "\n") {
      this.at += 1;
      return this.special("\n");
    }
    if (next === undefined || !ESCAPABLE.test(next)) return false;
    this.plain += next;
    this.at += 2;
    return true;
  }

  /** A formula is shown as it is written. */
  math(open, close) {
    if (!this.text.startsWith(open, this.at) || this.missing.has(close)) return false;
    const end = this.text.indexOf(close, this.at + open.length);
    if (end < 0) this.missing.add(close);
    if (end < 0 || end === this.at + open.length) return false;
    this.append(el("span", { className: "math" }, this.text.slice(this.at + open.length, end)));
    this.at = end + close.length;
    return true;
  }

  code() {
    this.ticks ??= runsOf(this.text);
    const length = runLength(this.text, this.at);
    const starts = this.ticks.get(length) ?? []; // an escaped one is no part of a run
    while (starts.length && starts[starts.length - 1] <= this.at) starts.pop();
    const end = starts[starts.length - 1];
    if (end === undefined) {
      this.plain += "`".repeat(length);
    } else {
      let code = this.text.slice(this.at + length, end).replaceAll("\n", " ");
      if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
      this.append(el("code", {}, code));
      this.at = end;
    }
    this.at += length;
    return true;
  }

  angled() {
    ANGLED.lastIndex = this.at;
    const found = ANGLED.exec(this.text);
    const address = found && safeAddress(found[1]);
    if (!address) return false;
    this.append(anchor(address, found[1]));
    this.at += found[0].length;
    return true;
  }

  bare() {
    ADDRESS.lastIndex = this.at;
    const found = ADDRESS.exec(this.text);
    const before = this.text[this.at - 1] ?? " ";
    const inLink = this.brackets.length > 0 && this.at < this.lastTarget;
    if (!found || WORD.test(before) || inLink) return false;
    const text = withoutTrail(found[0]);
    const address = safeAddress(text);
    if (!address) return false;
    this.append(anchor(address, text));
    this.at += text.length;
    return true;
  }

  bracket() {
    this.flush();
    const node = document.createTextNode(this.text[this.at - 1] === "!" ? "![" : "[");
    this.root.append(node);
    if (this.brackets.length >= OPEN_AT_ONCE) this.brackets.shift();
    this.brackets.push({ node, delimiters: this.delimiters.length });
    this.at += 1;
    return true;
  }

  link() {
    const opener = this.brackets.pop();
    const target = opener && targetAt(this.text, this.at + 1);
    const address = target && safeAddress(target.address);
    if (!address) return false;
    this.flush();
    this.emphasize(Math.min(opener.delimiters, this.delimiters.length));
    const link = anchor(address);
    while (opener.node.nextSibling) link.append(opener.node.nextSibling);
    if (!link.textContent.trim()) link.replaceChildren(address);
    opener.node.replaceWith(link);
    this.brackets = []; // a link has no links in it
    this.at = target.end;
    return true;
  }

  delimiter(character) {
    const length = runLength(this.text, this.at);
    const before = codeBefore(this.text, this.at);
    const after = codeAfter(this.text, this.at + length);
    this.flush();
    const node = document.createTextNode(character.repeat(length));
    this.root.append(node);
    this.at += length;
    if (character === "~" ? length !== 2 : length > LONGEST_RUN) return true;
    const left = flanks(before, after);
    const right = flanks(after, before);
    const word = character === "_";
    const entry = {
      character,
      node,
      open: left && (!word || !right || PUNCTUATION.test(before)),
      close: right && (!word || !left || PUNCTUATION.test(after)),
    };
    if (entry.close) this.close(entry);
    if (entry.open && node.length) {
      if (this.delimiters.length === OPEN_AT_ONCE) this.forgetFirst();
      this.delimiters.push(entry);
    }
    return true;
  }

  /** The first delimiter that waits is text after all. */
  forgetFirst() {
    this.delimiters.shift();
    for (const bracket of this.brackets) {
      bracket.delimiters = Math.max(0, bracket.delimiters - 1);
    }
  }

  /** Wrap what stands between a closing run and the runs that it closes. */
  close(closer) {
    const base = this.brackets.at(-1)?.delimiters ?? 0;
    while (closer.node.length) {
      let index = this.delimiters.length - 1;
      while (index >= base && !matches(this.delimiters[index], closer)) index -= 1;
      if (index < base) return;
      const opener = this.delimiters[index];
      this.delimiters.length = index + 1;
      const count = Math.min(2, opener.node.length, closer.node.length);
      const wrapper = el(TAGS[closer.character][count - 1]);
      while (opener.node.nextSibling !== closer.node) wrapper.append(opener.node.nextSibling);
      opener.node.after(wrapper);
      opener.node.deleteData(0, count);
      closer.node.deleteData(0, count);
      if (!opener.node.length) this.delimiters.pop();
    }
  }

  /** Forget the runs from `base` on that found no end: they are text. */
  emphasize(base) {
    this.delimiters.length = Math.min(base, this.delimiters.length);
  }
}

function matches(opener, closer) {
  if (opener.character !== closer.character) return false;
  if (opener.character === "~") return opener.node.length === closer.node.length;
  // CommonMark's rule of three, for runs that can do both.
  const sum = opener.node.length + closer.node.length;
  const thirds = opener.node.length % 3 === 0 && closer.node.length % 3 === 0;
  return !((opener.close || closer.open) && sum % 3 === 0 && !thirds);
}

/** Return whether a run between two characters touches a word on the side of the second. */
function flanks(outside, inside) {
  if (SPACE.test(inside)) return false;
  return !PUNCTUATION.test(inside) || SPACE.test(outside) || PUNCTUATION.test(outside);
}

function codeBefore(text, at) {
  if (at === 0) return " ";
  const low = text.charCodeAt(at - 1);
  return low >= 0xdc00 && low <= 0xdfff && at > 1 ? text.slice(at - 2, at) : text[at - 1];
}

function codeAfter(text, at) {
  return at >= text.length ? " " : String.fromCodePoint(text.codePointAt(at));
}

function runLength(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

/** Return where runs of backticks begin, by their length, the first one last. */
function runsOf(text) {
  const found = new Map();
  for (const run of text.matchAll(/`+/g)) {
    const length = run[0].length;
    if (!found.has(length)) found.set(length, []);
    found.get(length).push(run.index);
  }
  for (const starts of found.values()) starts.reverse();
  return found;
}

/** Return the address in "(address "title")" at a place of a text, and where that ends. */
function targetAt(text, at) {
  if (text[at] !== "(") return null;
  let depth = 0;
  let quoted = false;
  const last = Math.min(text.length, at + 4096);
  for (let i = at; i < last; i += 1) {
    const character = text[i];
    if (character === "\n") return null;
    if (character === "\\") i += 1;
    else if (character === '"' && /\s/.test(text[i - 1])) quoted = true;
    else if (character === '"') quoted = false;
    else if (!quoted && character === "(") depth += 1;
    else if (!quoted && character === ")") {
      depth -= 1;
      if (depth === 0) return { address: addressOf(text.slice(at + 1, i)), end: i + 1 };
    }
  }
  return null;
}

function addressOf(inside) {
  const trimmed = inside.trim();
  if (trimmed.startsWith("<")) return trimmed.slice(1).split(">", 1)[0];
  return trimmed.split(/\s/, 1)[0];
}

/** Return an address that was found in a text without the punctuation of its sentence. */
function withoutTrail(address) {
  let end = address.length;
  let open = 0;
  for (const character of address) open += (character === "(") - (character === ")");
  for (; end > 0; end -= 1) {
    const character = address[end - 1];
    if (character === ")" && open < 0) open += 1;
    else if (!".,;:!?'*_~]".includes(character)) break;
  }
  return address.slice(0, end);
}

function anchor(address, text) {
  const link = el("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" });
  link.title = address;
  if (text) link.append(text);
  return link;
}
