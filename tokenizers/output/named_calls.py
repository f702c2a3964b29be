"""Calls that are a name and a JSON object: ``[TOOL_CALLS]name[ARGS]{…}``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class NamedCalls:
    """Calls as a name and a JSON object.

    Attributes:
        open, separator, close: the marks before the name, before the arguments and behind them.
        around: the marks around all calls of an answer, if there are such.
        prefix: what stands before the name of a tool.
        suffix: what may stand behind it, a regular expression.
        identity: the mark that may stand between the name and an id of nine characters.
        after: what is written between the arguments and the closing mark.
        between: what is written between two calls.
    """

    open: str
    separator: str
    close: str = ""
    around: tuple[str, str] | None = None
    prefix: str = ""
    suffix: str = ""
    identity: str = ""
    after: str = ""
    between: str = ""

    @property
    def whole(self) -> bool:
        """Return False: thinking is read before."""
        return False

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts that are written around calls."""
        texts = (self.open, self.separator, self.close, self.identity, *(self.around or ()))
        return tuple(text for text in texts if len(text) > 1)

    def read(self, source: Source, out: Gathered, tools: Sequence[Tool]) -> Steps[None]:
        """Read content and calls to the end of the answer.

        A mark without a name and arguments behind it is content. What stands between the
        arguments and the closing mark is left out.
        """
        begins = (self.open, *(self.around or ()))
        while (begun := (yield from source.until(begins, out.say))) is not None:
            if begun != self.open:
                continue
            source.note(begun)
            name: list[str] = []
            ends = (self.separator, self.open, *filter(None, [self.close]))
            end = yield from source.until(ends, name.append)
            if end != self.separator:
                if end == self.open:
                    source.back(end)
                out.say(source.noted())
                continue
            source.noted()
            out.call(self._name("".join(name)))
            if (yield from source.space()) not in ("{", "["):
                out.arguments("{}")
            else:
                yield from source.json_value(out.arguments, self.close or None)
            if self.close:
                end = yield from source.until((self.close, self.open), drop)
                if end == self.open:
                    source.back(end)

    def _name(self, text: str) -> str:
        if self.identity:
            text = text.partition(self.identity)[0]
        name = text.strip().removeprefix(self.prefix)
        return re.sub(f"(?:{self.suffix})$", "", name) if self.suffix else name

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, token_id: TokenId) -> ToolGrammar:
        """Return what calls of these tools look like; see `ToolSyntax`."""
        check_names(tools)
        close = mark(self.close, token_id) if self.close else ""
        suffix = f"/{self.suffix}/" if self.suffix else ""
        if self.identity:
            suffix = sequence(mark(self.identity, token_id), "/[a-zA-Z0-9]{9}/")
        named = {"call": either(f"call_{index}" for index in range(len(tools)))}
        for index, tool in enumerate(tools):
            named[f"call_{index}"] = sequence(
                literal(self.prefix + tool.name),
                suffix,
                mark(self.separator, token_id),
                f"arguments_{index}",
                literal(self.after) if self.after else "",
                close,
            )
            named[f"arguments_{index}"] = json_rule(arguments_schema(tool, index))
        opening = mark(self.open, token_id)
        between = literal(self.between) if self.between else ""
        more = f"({sequence(between, opening, 'call')})*" if parallel else ""
        begin, end = (mark(text, token_id) for text in self.around) if self.around else ("", "")
        return ToolGrammar(
            rules(sequence(begin, opening, "call", more, end), named),
            rules(sequence(opening, "call", more, end) if begin else "call", named),
            (self.around[0] if self.around else self.open,),
        )
