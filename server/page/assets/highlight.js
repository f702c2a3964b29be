// A little colour in code: comments, strings, numbers, and the words that languages share.

import { el } from "./dom.js";

const LONGEST = 50_000; // characters; more is shown plain
const HASH = new Set(
  "bash dockerfile ini julia make makefile perl py python r rb ruby sh shell toml yaml yml zsh".split(" "),
);
const DASH = new Set("elm haskell hs lua sql".split(" "));
const PLAIN = new Set(["", "text", "txt", "plain", "console", "output", "markdown", "md", "diff", "csv"]);
const WORDS = new Set(
  (
    "abstract and as assert async await begin break case catch char class const constexpr continue def " +
    "default defer del delete do double elif else elsif end enum except export extends extern false " +
    "False final finally float fn for foreach from func function go goto if impl implements import in " +
    "instanceof int interface is lambda let local long loop match mod module mut namespace new nil None " +
    "nonlocal not null nullptr of or override package pass private protected pub public raise record " +
    "ref return self short signed sizeof static std str string struct super switch template then this " +
    "throw throws trait true True try type typedef typename typeof undefined union unless unsafe " +
    "unsigned until use using var virtual void volatile when where while with yield " +
    "SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE JOIN LEFT RIGHT INNER ON " +
    "GROUP BY ORDER HAVING LIMIT AS AND OR NOT NULL IS IN DISTINCT UNION ALL PRIMARY KEY"
  ).split(" "),
);
// Each part is linear: no two of its repetitions can share a character.
const STRING = /"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|`(?:[^`\\]|\\[^])*`?/;
const NUMBER = /\b(?:0[xX][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b/;
const WORD = /[A-Za-z_$][\w$]*/;
const COMMENTS = {
  hash: /#[^\n]*/,
  dash: /--[^\n]*/,
  slash: /\/\/[^\n]*|\/\*(?:[^*]|\*(?!\/))*(?:\*\/)?/,
  none: /(?!)/,
};

const PATTERNS = Object.fromEntries(
  Object.entries(COMMENTS).map(([name, comment]) => [
    name,
    new RegExp(
      `(?<comment>${comment.source})|(?<string>${STRING.source})|(?<number>${NUMBER.source})|(?<word>${WORD.source})`,
      "g",
    ),
  ]),
);

/** Return the texts and elements of a piece of code. */
export function highlighted(text, language) {
  const name = language.toLowerCase();
  if (PLAIN.has(name) || text.length > LONGEST) return [text];
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(PATTERNS[commentsOf(name)])) {
    const { comment, string, number, word } = found.groups;
    const kind = comment ? "comment" : string ? "string" : number ? "number" : "word";
    if (kind === "word" && !WORDS.has(word)) continue;
    parts.push(text.slice(at, found.index), el("span", { className: `t-${kind}` }, found[0]));
    at = found.index + found[0].length;
  }
  parts.push(text.slice(at));
  return parts;
}

function commentsOf(name) {
  if (HASH.has(name)) return "hash";
  if (DASH.has(name)) return "dash";
  return ["html", "xml", "svg", "json"].includes(name) ? "none" : "slash";
}
