"""Calls with an element for each argument: ``<function=name><parameter=key>value</parameter>…``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from edge_llm.tokenizers.output.values import escaped, json_of, kinds_of, schema_of

NEWLINE = r'"\n"?'  # which some models write between calls


@dataclass(frozen=True, slots=True)
class XmlCalls:
    """Calls with an element for each argument, whose values are text.

    Attributes:
        open, close: the marks around a call, if there are such.
        name_open, name_close: what stands around the name of the tool.
        key_open, key_close: what stands around the name of an argument.
        value_open, value_close: what stands around its value.
        end: what ends the arguments, before the closing mark.
        pad: white space between a value and what stands around it.
        line: white space between elements.
        quotes: what may stand around a string, so that nothing in it counts.
        several: the calls of an answer are all within one pair of marks.
    """

    open: str
    close: str
    name_open: str
    name_close: str
    key_open: str
    key_close: str
    value_close: str
    value_open: str = ""
    end: str = ""
    pad: str = ""
    line: str = "\n"
    quotes: tuple[str, str] | None = None
    several: bool = False

    @property
    def whole(self) -> bool:
        """Return False: thinking is read before."""
        return False

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts that are written around calls and their parts."""
        texts = (self.open, self.close, self.name_open, self.key_open, self.value_close, self.end)
        return tuple(filter(None, texts))

    def read(self, source: Source, out: Gathered, tools: Sequence[Tool]) -> Steps[None]:
        """Read content and calls to the end of the answer.

        A call without its opening mark, as models write now and then, is one too. A mark that no
        name follows is content. What stands between the arguments and the closing mark is left
        out.
        """
        known = {tool.name: tool for tool in tools}
        begins = tuple(filter(None, (self.open, self.name_open)))
        while (begun := (yield from source.until(begins, out.say))) is not None:
            source.note(begun)
            if begun == self.name_open and begun != self.open:
                called = yield from self._read_call(source, out, known)
                if called and self.close:  # the mark may follow though none began
                    yield from source.space()
                    if (yield from source.at([self.close])) is not None:
                        source.take(len(self.close))
            else:
                called = yield from self._read_block(source, out, known)
            unread = source.noted()
            if not called:
                out.say(unread)

    def _read_block(self, source: Source, out: Gathered, known: Mapping[str, Tool]) -> Steps[bool]:
        called = False
        while True:
            yield from source.space()
            if self.name_open:
                if (yield from source.at([self.name_open])) is None:
                    break
                source.take(len(self.name_open))
            elif called:
                break
            if not (yield from self._read_call(source, out, known)):
                break
            called = True
        if called:
            end = yield from source.until(filter(None, (self.close, self.open)), drop)
            if end == self.open:
                source.back(end)
        return called

    def _read_call(self, source: Source, out: Gathered, known: Mapping[str, Tool]) -> Steps[bool]:
        """Return whether a name comes next; if so, read it and the arguments."""
        name: list[str] = []
        stops = (self.name_close, *(() if self.name_open else (self.key_open, self.close)))
        stop = yield from source.until(filter(None, stops), name.append)
        text = "".join(name).strip().strip('"')
        if stop is None or not text or len(text.split()) > 1:
            return False
        if stop != self.name_close:
            source.back(stop)
        source.noted()
        out.call(text)
        tool = known.get(text)
        out.arguments("{")
        separator = ""
        ends = tuple(filter(None, (self.end, self.close)))
        while True:
            yield from source.space()
            if (yield from source.at([self.key_open])) is None:
                break
            source.take(len(self.key_open))
            key: list[str] = []
            if (yield from source.until([self.key_close], key.append)) is None:
                return True
            out.arguments(f'{separator}"{escaped("".join(key).strip())}": ')
            separator = ", "
            if not (yield from self._read_value(source, out, tool, "".join(key).strip())):
                return True
        found = yield from source.at(ends)
        if found == self.end:
            source.take(len(found))
        if found is not None or not source.exhausted:
            out.arguments("}")
        return True

    def _read_value(
        self, source: Source, out: Gathered, tool: Tool | None, key: str
    ) -> Steps[bool]:
        """Read a value; a string as it comes, anything else when it is whole.

        Returns:
            Whether it has come to its end.
        """
        if self.value_open:
            if (yield from source.until([self.value_open], drop)) is None:
                return False
        elif self.pad and (yield from source.at([self.pad])) is not None:
            source.take(len(self.pad))
        ends = {self.pad + self.value_close, self.value_close}
        kinds = kinds_of(schema_of(tool, key), tool.parameters if tool else {})
        if self.quotes is not None and (yield from source.at([self.quotes[0]])) is not None:
            source.take(len(self.quotes[0]))
            ends, kinds = {self.quotes[1] + self.value_close}, frozenset({"string"})
        if kinds == {"string"}:
            out.arguments('"')
            end = yield from source.until(ends, lambda text: out.arguments(escaped(text)))
            if end is not None:
                out.arguments('"')
        else:
            parts: list[str] = []
            end = yield from source.until(ends, parts.append)
            if end is not None:
                out.arguments(json_of("".join(parts), kinds))
        return end is not None

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, token_id: TokenId) -> ToolGrammar:
        """Return what calls of these tools look like; see `ToolSyntax`."""
        check_names(tools)
        named = {"call": either(f"call_{index}" for index in range(len(tools)))}
        line = literal(self.line) if self.line else ""
        end = self.pad + self.value_close
        end_rule = mark(end, token_id)
        if token_id(self.value_close) is not None:
            end, end_rule = self.value_close, mark(self.value_close, token_id)
        for index, tool in enumerate(tools):
            param = f"tools[{index}].function.parameters"
            schema = arguments_schema(tool, index)
            shapes = Shapes(schema, param, f"value_{index}_", end, end_rule)
            name = (self.name_open if self.open else "") + tool.name + self.name_close
            parts = [mark(name, token_id)]
            if self.name_open:
                parts.append(line)
            for key, of, required in shapes.properties():
                element = sequence(
                    mark(self.key_open + key + self.key_close, token_id),
                    sequence(line, mark(self.value_open, token_id)) if self.value_open else "",
                    literal(self.pad) if self.pad else "",
                    shapes.text(of),
                    line,
                )
                parts.append(element if required else f"({element})?")
            if self.end:
                parts.append(mark(self.end, token_id))
            named[f"call_{index}"] = sequence(*parts)
            named |= shapes.rules
        body = sequence(line if self.name_open else "", "call", line if self.end else "")
        more = f"(call {line})*" if self.several and parallel else ""
        after = sequence(body, more, mark(self.close, token_id) if self.close else "")
        opening = self.open or self.name_open
        named["block"] = sequence(mark(opening, token_id), after)
        start = "block"
        if parallel and not self.several:
            start = sequence("block", f"({line or NEWLINE} block)*")
        return ToolGrammar(rules(start, named), rules(after, named), (opening,))
