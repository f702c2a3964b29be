// The blocks of a Markdown text, as plain data: what `markdown.js` makes elements of.
//
// A block knows the line at which it begins. Whether it begins there follows from that line and the
// next, so that a text that grows only changes its last blocks. Nesting is bounded; deeper down everything is text.

const DEEPEST = 10;
const LONGEST_FORMULA = 64; // lines
const FENCE = /^ {0,3}(`{3,}|~{3,})(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const QUOTE = /^ {0,3}>/;
const MARKER = /^( {0,3})([-*+]|(\d{1,9})([.)]))( +|\t|$)/;
const TASK = /^\[([ xX])\] +/;
const DASHES = /^[ |:-]+$/;

/** Return the blocks of a text. */
export function blocks(text, depth = 0) {
  return blocksOf(text.replaceAll("\r\n", "\n").split("\n"), depth);
}

function blocksOf(lines, depth) {
  const found = [];
  let line = 0;
  while (line < lines.length) {
    if (!lines[line].trim()) {
      line += 1;
      continue;
    }
    const block = begins(lines, line, depth) ?? paragraph(lines, line, depth);
    block.line = line;
    found.push(block);
    line = block.end;
  }
  return found;
}

/** Return the block other than a paragraph that begins at a line, if one does. */
function begins(lines, line, depth) {
  return (
    fence(lines, line) ??
    formula(lines, line) ??
    heading(lines, line) ??
    rule(lines, line) ??
    table(lines, line) ??
    (depth < DEEPEST ? quote(lines, line, depth) ?? list(lines, line, depth) : null)
  );
}

function fence(lines, line) {
  const found = FENCE.exec(lines[line]);
  if (!found || (found[1][0] === "`" && found[2].includes("`"))) return null;
  const mark = found[1];
  const indent = indentOf(lines[line]);
  const language = found[2].trim().split(/\s/, 1)[0];
  const code = [];
  for (let i = line + 1; i < lines.length; i += 1) {
    const text = lines[i].trim();
    if (text.length >= mark.length && isAll(text, mark[0]) && indentOf(lines[i]) < 4) {
      return { kind: "code", language, text: code.join("\n"), closed: true, end: i + 1 };
    }
    code.push(lines[i].slice(Math.min(indent, indentOf(lines[i]))));
  }
  return { kind: "code", language, text: code.join("\n"), closed: false, end: lines.length };
}

function formula(lines, line) {
  const first = lines[line].trim();
  const close = first.startsWith("$$") ? "$$" : first.startsWith("\\[") ? "\\]" : null;
  if (close === null) return null;
  const texts = [];
  for (let i = line; i < line + LONGEST_FORMULA; i += 1) {
    let text = lines[i]?.trim();
    // It may still come to its end, and must not fall apart until then.
    const open = i === lines.length || (i === lines.length - 1 && i > line && !text);
    if (open) return { kind: "math", text: texts.join("\n").trim(), end: i };
    if (i > line && !text) return null; // a formula has no empty lines
    if (i === line) text = text.slice(2);
    const end = text.indexOf(close);
    if (end >= 0 && text.slice(end + 2).trim()) return null; // the sentence goes on
    texts.push(end < 0 ? text : text.slice(0, end));
    if (end >= 0) return { kind: "math", text: texts.join("\n").trim(), end: i + 1 };
  }
  return null;
}

function heading(lines, line) {
  const found = HEADING.exec(lines[line]);
  if (!found) return null;
  let text = (found[2] ?? "").trimEnd();
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  if (end === 0 || /\s/.test(text[end - 1])) text = text.slice(0, end).trimEnd();
  return { kind: "heading", level: found[1].length, text, end: line + 1 };
}

function rule(lines, line) {
  const text = lines[line].replace(/[ \t]/g, "");
  const is = text.length >= 3 && "-*_".includes(text[0]) && isAll(text, text[0]);
  return is && indentOf(lines[line]) < 4 ? { kind: "rule", end: line + 1 } : null;
}

function table(lines, line) {
  const dashes = lines[line + 1];
  if (!lines[line].includes("|") || !dashes?.includes("|") || !DASHES.test(dashes)) return null;
  const head = cells(lines[line]);
  const marks = cells(dashes);
  if (marks.length !== head.length || !marks.every((mark) => /^:?-+:?$/.test(mark))) return null;
  const aligned = marks.map((mark) => {
    if (mark.endsWith(":")) return mark.startsWith(":") ? "center" : "right";
    return "left";
  });
  const rows = [];
  let end = line + 2;
  for (; end < lines.length && lines[end].includes("|"); end += 1) {
    const row = cells(lines[end]).slice(0, head.length);
    while (row.length < head.length) row.push("");
    rows.push(row);
  }
  return { kind: "table", head, aligned, rows, end };
}

function quote(lines, line, depth) {
  if (!QUOTE.test(lines[line])) return null;
  const inner = [];
  let end = line;
  for (; end < lines.length && QUOTE.test(lines[end]); end += 1) {
    inner.push(lines[end].replace(/^ {0,3}> ?/, ""));
  }
  return { kind: "quote", blocks: blocksOf(inner, depth + 1), end };
}

function list(lines, line, depth) {
  const first = markerAt(lines, line);
  if (!first) return null;
  const items = [];
  let end = line;
  let loose = false;
  while (end < lines.length) {
    const marker = markerAt(lines, end);
    if (!marker || marker.kind !== first.kind || marker.indent >= first.indent + 2) break;
    const item = itemAt(lines, end, marker);
    const task = TASK.exec(item.lines[0]);
    if (task) item.lines[0] = item.lines[0].slice(task[0].length);
    const inner = blocksOf(item.lines, depth + 1);
    loose ||= gapped(inner, item.lines);
    items.push({ blocks: inner, done: task ? task[1] !== " " : null });
    let next = item.end;
    while (next < lines.length && !lines[next].trim()) next += 1;
    const more = next < lines.length && markerAt(lines, next)?.kind === first.kind;
    if (more && next > item.end) loose = true;
    end = more ? next : item.end;
    if (!more) break;
  }
  return { kind: "list", ordered: first.start !== null, start: first.start ?? 1, loose, items, end };
}

/** Return the mark of a list's item at a line, null if there is none. */
function markerAt(lines, line) {
  const found = MARKER.exec(lines[line]);
  if (!found || rule(lines, line)) return null;
  const wide = found[5].length > 4 ? 1 : Math.max(1, found[5].length);
  return {
    kind: found[4] ?? found[2],
    start: found[3] === undefined ? null : Number(found[3]),
    indent: found[1].length,
    content: found[1].length + found[2].length + wide,
  };
}

/** Return the lines of an item without its indentation, and the line behind it. Two columns are
 *  enough to belong to it: that is how models write. */
function itemAt(lines, line, marker) {
  const inner = [lines[line].slice(marker.content)];
  let fenced = FENCE.test(inner[0]);
  let end = line + 1;
  for (let i = end; i < lines.length; i += 1) {
    const blank = !lines[i].trim();
    const indent = indentOf(lines[i]);
    const inside = !blank && indent >= marker.indent + 2;
    const lazy = !blank && !inside && !fenced && lines[i - 1].trim() && !startsBlock(lines, i);
    if (!blank && !inside && !lazy) break;
    inner.push(lines[i].slice(Math.min(indent, marker.content)));
    if (FENCE.test(inner.at(-1))) fenced = !fenced;
    if (!blank) end = i + 1;
  }
  inner.length = end - line;
  return { lines: inner, end };
}

/** Return whether two blocks of an item have an empty line between them. */
function gapped(inner, lines) {
  return inner.some((block, index) => index > 0 && !lines[block.line - 1].trim());
}

function startsBlock(lines, line) {
  const text = lines[line];
  return (
    FENCE.test(text) ||
    HEADING.test(text) ||
    QUOTE.test(text) ||
    rule(lines, line) !== null ||
    markerAt(lines, line) !== null
  );
}

function paragraph(lines, line, depth) {
  const texts = [lines[line].trimStart()];
  let end = line + 1;
  for (; end < lines.length && lines[end].trim(); end += 1) {
    const under = lines[end].trim();
    if (under && indentOf(lines[end]) < 4 && (isAll(under, "=") || isAll(under, "-"))) {
      const level = under[0] === "=" ? 1 : 2;
      return { kind: "heading", level, text: texts.join("\n").trim(), end: end + 1 };
    }
    if (interrupts(lines, end, depth)) break;
    texts.push(lines[end].trimStart());
  }
  return { kind: "paragraph", text: texts.join("\n").trimEnd(), end };
}

/** Return whether a line ends the paragraph before it. */
function interrupts(lines, line, depth) {
  const marker = markerAt(lines, line);
  if (marker) {
    const empty = !lines[line].slice(marker.content).trim();
    return depth < DEEPEST && !empty && (marker.start === null || marker.start === 1);
  }
  return startsBlock(lines, line) || table(lines, line) !== null;
}

function cells(line) {
  let text = line.trim();
  if (text.startsWith("|")) text = text.slice(1);
  const found = [];
  let cell = "";
  for (let i = 0; i < text.length; i += 1) {
    if (text[i] === "\\" && text[i + 1] === "|") {
      cell += "|";
      i += 1;
    } else if (text[i] === "|") {
      found.push(cell.trim());
      cell = "";
    } else {
      cell += text[i];
    }
  }
  if (cell.trim() || !text.endsWith("|")) found.push(cell.trim());
  return found;
}

function indentOf(line) {
  let width = 0;
  while (line[width] === " " || line[width] === "\t") width += 1;
  return width;
}

function isAll(text, character) {
  for (const one of text) if (one !== character) return false;
  return text.length > 0;
}
