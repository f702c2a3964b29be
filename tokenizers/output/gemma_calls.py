"""Gemma's calls: ``call:name{key:value,…}``, whose strings stand between marks of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from edge_llm.tokenizers.output.source import Source, Steps, drop
from edge_llm.tokenizers.output.syntax import TokenId, ToolGrammar
from edge_llm.tokenizers.output.values import escaped, json_of, kinds_of

_SCALARS = frozenset({"number", "integer", "boolean", "null"})
_HEAD = "call:"
_MAX_DEPTH = 32  # of objects and lists in each other, that are read


@dataclass(frozen=True, slots=True)
class GemmaCalls:
    """Calls of Gemma.

    Attributes:
        open, close: the marks around a call.
        quote: the mark at both ends of a string.
    """

    open: str
    close: str
    quote: str

    @property
    def whole(self) -> bool:
        """Return False: thinking is read before."""
        return False

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts that are written around calls and their strings."""
        return (self.open, self.close, self.quote)

    def read(self, source: Source, out: Gathered, tools: Sequence[Tool]) -> Steps[None]:
        """Read content and calls to the end of the answer.

        A mark that no name follows is content. What stands between the arguments and the closing
        mark is left out.
        """
        while (begun := (yield from source.until([self.open], out.say))) is not None:
            source.note(begun)
            yield from source.space()
            if (yield from source.at([_HEAD])) is not None:
                source.take(len(_HEAD))
            name: list[str] = []
            stop = yield from source.until(("{", self.close), name.append)
            text = "".join(name).strip()
            if stop is None or not text:
                out.say(source.noted())
                continue
            source.noted()
            out.call(text)
            if stop == self.close:
                out.arguments("{}")
                continue
            if (yield from self._entries(source, out, 1)):
                yield from source.until([self.close], drop)

    def _entries(self, source: Source, out: Gathered, depth: int) -> Steps[bool]:
        """Read an object behind its brace; return whether it has come to its end."""
        out.arguments("{")
        separator = ""
        while True:
            first = yield from source.space()
            if first == ",":
                source.take(1)
                continue
            if first in ("", "}"):
                source.take(1)
                out.arguments("}" if first else "")
                return bool(first)
            quoted = (yield from source.at([self.quote])) is not None
            key: list[str] = []
            if quoted:
                source.take(len(self.quote))
                if (yield from source.until([self.quote], key.append)) is None:
                    return False
            stop = yield from source.until((":", "}"), drop if quoted else key.append)
            if stop != ":":
                out.arguments("}" if stop else "")
                return stop is not None
            out.arguments(f'{separator}"{escaped("".join(key).strip())}": ')
            separator = ", "
            if not (yield from self._value(source, out, depth)):
                return False

    def _value(self, source: Source, out: Gathered, depth: int) -> Steps[bool]:
        first = yield from source.space()
        if (yield from source.at([self.quote])) is not None:
            source.take(len(self.quote))
            out.arguments('"')
            end = yield from source.until([self.quote], lambda text: out.arguments(escaped(text)))
            out.arguments('"' if end else "")
            return end is not None
        if first == "{" and depth < _MAX_DEPTH:
            source.take(1)
            return (yield from self._entries(source, out, depth + 1))
        if first == "[" and depth < _MAX_DEPTH:
            source.take(1)
            return (yield from self._items(source, out, depth + 1))
        parts: list[str] = []
        stop = yield from source.until((",", "}", "]"), parts.append)
        if stop is None:
            return False
        source.back(stop)
        out.arguments(json_of("".join(parts).strip(), _SCALARS))
        return True

    def _items(self, source: Source, out: Gathered, depth: int) -> Steps[bool]:
        out.arguments("[")
        separator = ""
        while True:
            first = yield from source.space()
            if first in ("", "]", "}"):
                source.take(first == "]")
                out.arguments("]" if first else "")
                return bool(first)
            if first == ",":
                source.take(1)
                continue
            out.arguments(separator)
            separator = ", "
            if not (yield from self._value(source, out, depth)):
                return False

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, token_id: TokenId) -> ToolGrammar:
        """Return what calls of these tools look like; see `ToolSyntax`."""
        check_names(tools)
        named = {"call": either(f"call_{index}" for index in range(len(tools)))}
        quote = mark(self.quote, token_id)
        for index, tool in enumerate(tools):
            schema = arguments_schema(tool, index)
            param = f"tools[{index}].function.parameters"
            values = _Values(schema, param, f"value_{index}_", quote, self.quote)
            body = values.object(schema)
            named[f"call_{index}"] = sequence(literal(_HEAD + tool.name), body)
            named |= values.shapes.rules
        block = sequence(mark(self.open, token_id), "call", mark(self.close, token_id))
        named["block"] = block
        return ToolGrammar(
            rules("block+" if parallel else "block", named),
            rules(sequence("call", mark(self.close, token_id)), named),
            (self.open,),
        )


class _Values:
    """Grammars for values as Gemma writes them: no quotes around keys, marks around strings."""

    def __init__(
        self, root: Mapping[str, Any], param: str, prefix: str, quote: str, end: str
    ) -> None:
        self.shapes = Shapes(root, param, prefix, end, quote)
        self._root, self._quote = root, quote
        self._referred: dict[str, str] = {}
        self._any: dict[str, str] | None = None  # rules of values that the schema leaves open

    def object(self, schema: Mapping[str, Any]) -> str:
        """Return the rule of an object; keys are in order, as the template sorts them."""
        entries = sorted(self.shapes.properties_of(schema), key=lambda entry: entry[0].lower())
        rules_of = [
            (sequence(literal(key + ":"), self.value(of)), required)
            for key, of, required in entries
        ]
        return sequence(literal("{"), self.shapes.in_order(rules_of, literal(",")), literal("}"))

    def value(self, schema: Any) -> str:
        """Return the rule of a value."""
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str):
            return self._rule(schema)
        name = self._referred.get(reference)
        if name is None:  # named before it is known, since it may contain itself
            name = self._referred[reference] = self.shapes.add("")
            self.shapes.rules[name] = self._rule(self.shapes.resolved(schema))
        return name

    def _rule(self, schema: Any) -> str:
        kinds = kinds_of(schema, self._root)
        if kinds == {"string"}:
            return self._string(schema)
        if kinds <= _SCALARS:
            return self.shapes.json(schema)
        schema = schema if isinstance(schema, Mapping) else {}
        options = schema.get("anyOf", schema.get("oneOf"))
        if isinstance(options, list) and options:
            return self.shapes.add(either(map(self.value, options)))
        if isinstance(schema.get("enum"), list):
            return self.shapes.add(either(self.value({"const": one}) for one in schema["enum"]))
        if kinds == {"object"} and "properties" in schema:
            return self.shapes.add(self.object(schema))
        if kinds == {"array"}:
            self.shapes.only(schema, {"type", "items"})
            return self._list(self.value(schema.get("items", True)))
        self.shapes.only(schema, {"type", "additionalProperties"})
        if schema.get("additionalProperties") not in (None, True):
            raise self.shapes.refused("additionalProperties")
        if not kinds & {"object", "array"}:
            return self.shapes.add(either(self.value({"type": kind}) for kind in sorted(kinds)))
        return self._anything(kinds)

    def _string(self, schema: Any) -> str:
        return self.shapes.add(sequence(self._quote, self.shapes.string(schema)))

    def _list(self, item: str) -> str:
        return self.shapes.add(sequence('"["', f'({item} ("," {item})*)?', '"]"'))

    def _anything(self, kinds: frozenset[str]) -> str:
        """Return the rule of values that are objects or lists of whatever may be."""
        if self._any is None:
            self._any = {}
            key = self.shapes.add("/[a-zA-Z_][a-zA-Z0-9_-]{0,63}/", terminal=True)
            value = self.shapes.add("")
            for kind in _SCALARS - {"integer"}:
                self._any[kind] = self.shapes.json({"type": kind})
            self._any["integer"] = self.shapes.json({"type": "integer"})
            self._any["string"] = self._string({})
            self._any["array"] = self._list(value)
            entry = f'{key} ":" {value}'
            entries = f'({entry} ("," {entry})*)?'
            self._any["object"] = self.shapes.add(sequence('"{"', entries, '"}"'))
            all_kinds = sorted(self._any.keys() - {"integer"})
            self.shapes.rules[value] = either(self._any[kind] for kind in all_kinds)
        return self.shapes.add(either(self._any[kind] for kind in sorted(kinds)))
