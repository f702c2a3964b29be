"""Calls as Python writes them: ``[name(key='value', other=2)]``, those of LFM2."""

from __future__ import annotations

import ast
import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_llm.parsed import Tool
from edge_llm.tokenizers.output.gathered import Gathered
from edge_llm.tokenizers.output.lark import (
    arguments_schema,
    check_names,
    either,
    literal,
    mark,
    rules,
    sequence,
)
from edge_llm.tokenizers.output.shapes import Shapes
from edge_llm.tokenizers.output.source import Source, Steps
from edge_llm.tokenizers.output.syntax import TokenId, ToolGrammar
from edge_llm.tokenizers.output.values import escaped, json_of

_HEAD = re.compile(r"[\s,]*([\w.-]+)\s*\(")
_KEY = re.compile(r"[\s,]*([\w-]+)\s*=\s*")
_END = re.compile(r"[\s,]*\)")
# What may follow the quote that ends a string: templates write strings as they are, so that a quote
# with anything else behind it is one of the text.
_BEHIND = re.compile(r"\s*(?:,\s*[\w-]+\s*=|\)\s*(?:,\s*[\w.-]+\s*\(|\]|$))")
_QUOTE = re.compile(r"[\"']")
_SIGN = re.compile(r"[\"'\[\]{}(),]")
_OTHERS = frozenset({"number", "integer", "boolean", "null", "object", "array"})
_MAX_STRING = 100_000  # characters of one that is looked at as a literal of Python


@dataclass(frozen=True, slots=True)
class PythonCalls:
    """Calls of Python between two marks, in a list.

    Attributes:
        open, close: the marks around the list.
    """

    open: str
    close: str

    @property
    def whole(self) -> bool:
        """Return False: thinking is read before."""
        return False

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts that are written around calls."""
        return (self.open, self.close)

    def written(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Return calls as the model writes them."""
        texts = [
            f"{name}({', '.join(f'{key}={_python(value)}' for key, value in arguments.items())})"
            for name, arguments in calls
        ]
        return f"{self.open}[{', '.join(texts)}]{self.close}"

    def read(self, source: Source, out: Gathered, tools: Sequence[Tool]) -> Steps[None]:
        """Read content and calls to the end of the answer.

        Calls come when their closing mark does: where a string ends follows from what is behind it.
        What is between the marks and begins with no call is content.
        """
        while (begun := (yield from source.until([self.open], out.say))) is not None:
            source.note(begun)
            parts: list[str] = []
            yield from source.until([self.close], parts.append)
            text, read = source.noted(), False
            for name, arguments in _calls("".join(parts)):
                out.call(name)
                out.arguments(arguments)
                read = True
            if not read:
                out.say(text)

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, token_id: TokenId) -> ToolGrammar:
        """Return what calls of these tools look like; see `ToolSyntax`. Values are JSON, which
        Python reads but for three words."""
        check_names(tools)
        named = {"call": either(f"call_{index}" for index in range(len(tools)))}
        for index, tool in enumerate(tools):
            schema = arguments_schema(tool, index)
            param = f"tools[{index}].function.parameters"
            shapes = Shapes(schema, param, f"value_{index}_", "", "")
            entries = []
            for key, of, required in shapes.properties():
                if re.fullmatch(r"[\w-]+", key) is None:
                    raise shapes.refused(f"properties/{key}")
                entries.append((sequence(literal(f"{key}="), shapes.json(of)), required))
            body = shapes.in_order(entries, literal(", "))
            named[f"call_{index}"] = sequence(literal(f"{tool.name}("), body, literal(")"))
            named |= shapes.rules
        more = '(", " call)*' if parallel else ""
        after = sequence(literal("["), "call", more, literal("]"), mark(self.close, token_id))
        return ToolGrammar(
            rules(sequence(mark(self.open, token_id), after), named),
            rules(after, named),
            (self.open,),
        )


def _python(value: Any) -> str:
    """Return a JSON value as Python writes it, with JSON's quotes."""
    if isinstance(value, Mapping):
        entries = (f"{_python(str(key))}: {_python(item)}" for key, item in value.items())
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_python, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _calls(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and arguments of each call, as JSON; those of a call that was cut off are not
    closed."""
    strings = _Strings(text)
    at = len(text) - len(text.lstrip())
    at += text.startswith("[", at)
    while (head := _HEAD.match(text, at)) is not None:
        at = head.end()
        entries = []
        while (key := _KEY.match(text, at)) is not None:
            begin = key.end()
            quoted = text[begin : begin + 1] in ("'", '"')
            at = strings.end(begin) if quoted else _other_end(text, begin)
            value = text[begin:at]
            if at == len(text):
                break
            entries.append(f'"{escaped(key[1])}": {_json(value)}')
        end = _END.match(text, at)
        yield head[1], "{" + ", ".join(entries) + ("}" if end else "")
        if end is None:
            return
        at = end.end()


class _Strings:
    """Where strings of a text can end: behind a quote that something of a call follows. Each quote
    is looked at once."""

    def __init__(self, text: str) -> None:
        self._text = text
        # By quote, and whether it is escaped.
        self._ends: dict[tuple[str, bool], list[int]] = {}
        for found in _QUOTE.finditer(text):
            if _BEHIND.match(text, found.end()):
                key = found[0], _is_escaped(text, found.start())
                self._ends.setdefault(key, []).append(found.end())

    def end(self, begin: int) -> int:
        """Return where the string ends that begins there: at the first quote that is not escaped,
        else the first that is; the end of the text where there is none."""
        for is_escaped in (False, True):
            ends = self._ends.get((self._text[begin], is_escaped), [])
            place = bisect_right(ends, begin + 1)
            if place < len(ends):
                return ends[place]
        return len(self._text)


def _other_end(text: str, begin: int) -> int:
    """Return where a value ends that is no string: at the comma or bracket behind it."""
    depth, within = 0, ""
    for found in _SIGN.finditer(text, begin):
        sign = found[0]
        if within:
            within = "" if sign == within and not _is_escaped(text, found.start()) else within
        elif sign in ("'", '"'):
            within = sign
        elif sign in ("[", "{", "("):
            depth += 1
        elif depth == 0:
            return found.start()
        else:
            depth -= sign != ","
    return len(text)


def _is_escaped(text: str, at: int) -> bool:
    first = at
    while first > 0 and text[first - 1] == "\\":
        first -= 1
    return (at - first) % 2 == 1


def _json(value: str) -> str:
    """Return a value as JSON: a string as JSON or Python reads it, or as it stands between its
    quotes; anything else as JSON or Python reads it, or as a string."""
    if value[:1] not in ("'", '"'):
        return json_of(value.strip(), _OTHERS)
    read: object = None
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        try:
            read = ast.literal_eval(value) if len(value) <= _MAX_STRING else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            read = None
    return json.dumps(read if isinstance(read, str) else value[1:-1], ensure_ascii=False)
