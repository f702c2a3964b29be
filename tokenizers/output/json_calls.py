"""Calls that are JSON objects: ``{"name": …, "arguments": …}`` between marks, one or a list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_llm.parsed import Tool
from edge_llm.tokenizers.output.gathered import Gathered
from edge_llm.tokenizers.output.lark import (
    arguments_schema,
    check_names,
    either,
    json_rule,
    literal,
    mark,
    rules,
    sequence,
)
from edge_llm.tokenizers.output.source import Source, Steps, drop
from edge_llm.tokenizers.output.syntax import TokenId, ToolGrammar

_ARGUMENTS = ("arguments", "parameters")
_NAMES = ("name", "tool_name")


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """Calls as JSON objects.

    Attributes:
        opens: the marks that begin a call or a list of calls; the first is the usual one.
        close: the mark behind it, if there is one.
        bare: a call may also be an object at the beginning of the answer, without marks.
        name, arguments: the keys that the model uses; others of the same meaning are read too.
        head, tail: further entries of an object, before the name and behind the arguments, as
            parts of a grammar.
        before, between, after: what is written inside of the marks: before the first object,
            between two and behind the last. Where ``repeat`` is set each call has marks of its
            own, and ``between`` is what stands between two such calls.
    """

    opens: tuple[str, ...]
    close: str | None
    bare: bool = False
    name: str = "name"
    arguments: str = "arguments"
    head: str = ""
    tail: str = ""
    before: str = ""
    between: str = ", "
    after: str = ""
    repeat: bool = False

    @property
    def whole(self) -> bool:
        """Return False: thinking is read before."""
        return False

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts that are written around calls."""
        return (*self.opens, self.close) if self.close else self.opens

    def written(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Return calls as the model writes them."""
        objects = [
            json.dumps({self.name: name, self.arguments: arguments}, ensure_ascii=False)
            for name, arguments in calls
        ]
        begin, end = self.opens[0] + self.before, self.after + (self.close or "")
        if self.repeat:
            return self.between.join(f"{begin}{item}{end}" for item in objects)
        return f"{begin}{self.between.join(objects)}{end}"

    def read(self, source: Source, out: Gathered, tools: Sequence[Tool]) -> Steps[None]:
        """Read content and calls to the end of the answer.

        What follows a mark and is no call is content, with the mark. What stands behind a call
        before its closing mark is left out.
        """
        if self.bare:
            yield from self._read_bare(source, out, tools)
        while (opened := (yield from source.until(self.opens, out.say))) is not None:
            source.note(opened)
            called = yield from self._read_block(source, out)
            unread = source.noted()
            if not called:
                out.say(unread)

    def _read_bare(self, source: Source, out: Gathered, tools: Sequence[Tool]) -> Steps[None]:
        source.note()
        first = yield from source.space()
        names = frozenset(tool.name for tool in tools)
        while first == "{":
            if not (yield from self._read_object(source, out, names)):
                break
            source.note()
            first = yield from source.space()
            if first == ";":
                source.take(1)
                first = yield from source.space()
        out.say(source.noted())

    def _read_block(self, source: Source, out: Gathered) -> Steps[bool]:
        """Return whether there was a call between the marks."""
        called, depth = False, 0
        while True:
            first = yield from source.space()
            if first and first in "[],;":
                source.take(1)
                depth += (first == "[") - (first == "]")
                if called and first == "]" and depth <= 0 and self.close is None:
                    return True
            elif first == "{":
                if not (yield from self._read_object(source, out, None)):
                    return called
                called = True
                source.note()
            elif self.close is not None and (yield from source.at([self.close])):
                source.take(len(self.close))
                return called
            elif called and self.close is not None:
                # Something else behind a call: the rest of the block means nothing.
                if (yield from source.at(self.opens)) is not None or not first:
                    return True
                source.take(1)
            else:
                return called

    def _read_object(
        self, source: Source, out: Gathered, names: frozenset[str] | None
    ) -> Steps[bool]:
        """Return whether the object that comes next is a call.

        Args:
            names: those that it may have; by default any, which is for the client to judge.
        """
        source.take(1)
        called = given = False
        early: list[str] = []  # arguments before the name
        while True:
            if (yield from source.space()) in ("}", ","):
                if source.take(1) == "}":
                    break
                continue
            key = yield from source.json_string()
            if key is None or (yield from source.space()) != ":":
                break
            source.take(1)
            if key in _NAMES and not called:
                name = yield from source.json_string()
                if name is None or (names is not None and name not in names):
                    return False
                called = True
                source.noted()
                out.call(name)
                out.arguments("".join(early))
            elif key in _ARGUMENTS and not given:
                given = True
                keep = out.arguments if called else early.append
                if not (yield from source.json_value(keep, self.close)):
                    break
            else:
                if names is not None and not called and key != "type":
                    return False  # an object that the model was asked for, perhaps
                if not (yield from source.json_value(drop, self.close)):
                    break
        if called and not given:
            out.arguments("{}")
        return called

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, token_id: TokenId) -> ToolGrammar:
        """Return what calls of these tools look like; see `ToolSyntax`."""
        check_names(tools)
        opening = sequence(literal("{"), self.head, literal(f'"{self.name}"'))
        named = {"call": sequence(opening, "rest")}
        named["rest"] = either(f"rest_{index}" for index in range(len(tools)))
        for index, tool in enumerate(tools):
            told = f': "{tool.name}", "{self.arguments}": '
            named[f"rest_{index}"] = sequence(
                literal(told), f"arguments_{index}", self.tail, literal("}")
            )
            named[f"arguments_{index}"] = json_rule(arguments_schema(tool, index))
        more = f"({literal(self.between)} call)*" if parallel and not self.repeat else ""
        if self.bare:
            start, after = sequence("call", more), sequence("rest", more)
            trigger = f'{{"{self.name}"'
            return ToolGrammar(rules(start, named), rules(after, named), (trigger,), at_start=True)
        within = sequence(
            '" "?' if self.before.startswith("[") else "",  # as SentencePiece begins a word
            literal(self.before) if self.before else "",
            "call",
            more,
            literal(self.after) if self.after else "",
            mark(self.close, token_id) if self.close else "",
        )
        start = "block"
        if parallel and self.repeat:
            start = f"block ({literal(self.between)} block)*"
        block = sequence(mark(self.opens[0], token_id), within)
        return ToolGrammar(
            rules(start, {"block": block, **named}), rules(within, named), self.opens[:1]
        )
