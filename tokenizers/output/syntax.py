"""How a model writes what is no content: thinking blocks and calls of tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from edge_llm.errors import RequestError
from edge_llm.parsed import Parsed, Parser, Tool
from edge_llm.tokenizers.output.gathered import Gathered
from edge_llm.tokenizers.output.source import Source, Steps

TokenId = Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class ToolGrammar:
    """What an answer with calls may look like, in llguidance's Lark.

    Attributes:
        start: one or more calls, from the beginning of the answer or behind its thinking.
        after: one call, or a block of several, from behind a trigger on.
        triggers: texts with which a call begins in free text.
        at_start: a trigger counts at the beginning of the answer alone.
    """

    start: str
    after: str | None
    triggers: tuple[str, ...]
    at_start: bool = False


class ToolSyntax(Protocol):
    """How calls are written: a table's row."""

    @property
    def whole(self) -> bool:
        """Tell whether it reads thinking too, and answers without tools."""

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts that are written around calls; some are control tokens."""

    def read(self, source: Source, out: Gathered, tools: Sequence[Tool]) -> Steps[None]:
        """Read content and calls to the end of the answer."""

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, token_id: TokenId) -> ToolGrammar:
        """Return what calls of these tools look like.

        Raises:
            RequestError: a schema that this syntax cannot enforce.
        """


@runtime_checkable
class WritingSyntax(Protocol):
    """A syntax that can write calls as its model does."""

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts that are written around calls."""

    def written(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Return calls, each a name and its arguments, as they are read."""


@dataclass(frozen=True, slots=True)
class ReasoningSyntax:
    """How a thinking block is written, and what its template lets a caller choose.

    Attributes:
        open, close: the texts around it.
        gap: white space that the template writes between the block and content.
        opened: the template's prompt for an answer has opened the block, unless told otherwise.
        variable: the template's variable that turns thinking on and off; None if it has none.
        default: whether it is on where the variable is not given.
        effort_variable: the template's variable for the effort; None if it has none.
        efforts: the values that this variable takes, weakest first.
        mentioned: the template writes the marks. Elsewhere the tokenizer alone has them, and there
            is nothing to turn off.
    """

    open: str
    close: str
    gap: str = ""
    opened: bool = False
    variable: str | None = None
    default: bool = True
    effort_variable: str | None = None
    efforts: tuple[str, ...] = ()
    mentioned: bool = True

    def opened_by(self, prompt: str) -> bool:
        """Tell whether a prompt, or the end of one with its control tokens written out, ends in
        the head of a thinking block."""
        return prompt.rstrip().endswith(self.open.rstrip())

    def variables(self, *, enabled: bool | None, effort: str | None) -> dict[str, Any]:
        """Return the template variables for what a request asks of thinking.

        Args:
            enabled: think or not; None is the template's default.
            effort: "none", "minimal", "low", "medium", "high" or "xhigh"; None is the template's
                default. "none" is the same as not enabled where the template has no such effort,
                and any other effort turns a switch on that is off by default.

        Raises:
            RequestError: the template has no switch for it.
        """
        found: dict[str, Any] = {}
        if effort is not None:
            if self.effort_variable is not None and effort in self.efforts:
                found[self.effort_variable] = effort
                if enabled is None and not self.default:
                    enabled = True
            elif effort == "none" and enabled is not True:
                enabled = False
            elif self.effort_variable is not None or self.variable is None:
                known = ", ".join(repr(name) for name in self.efforts) or "none at all"
                raise RequestError(
                    f"the model's chat template has no reasoning effort {effort!r}, it knows "
                    f"{known}",
                    param="reasoning_effort",
                )
            elif enabled is None:
                enabled = True  # a switch alone: any effort is on
        if enabled is not None:
            if self.variable is not None:
                found[self.variable] = enabled
            elif not enabled and "none" in self.efforts and self.effort_variable is not None:
                found[self.effort_variable] = "none"
            elif not enabled and self.mentioned:
                raise RequestError(
                    "the model's chat template has no switch that turns thinking off",
                    param="enable_thinking" if effort is None else "reasoning_effort",
                )
        return found


@dataclass(frozen=True, slots=True)
class OutputSyntax:
    """How the answers of a model are to be read; what its template does not know is None.

    ``content_head`` is what stands between thinking and content, control tokens written out."""

    reasoning: ReasoningSyntax | None = None
    tools: ToolSyntax | None = None
    content_head: str = ""

    def parser(
        self, *, tools: Sequence[Tool] = (), thinking: bool = False, calls_only: bool = False
    ) -> Parser:
        """Return a parser of one answer.

        Args:
            tools: those that may be called; without any, all that is not thinking is content.
            thinking: the prompt has opened a thinking block.
            calls_only: a grammar allows nothing but calls behind thinking, so that what is no call
                is the beginning of one that was cut off, and is left out.
        """
        return _SyntaxParser(self, tools, thinking, calls_only)

    def tool_grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_id: TokenId
    ) -> ToolGrammar:
        """Return what calls of these tools look like.

        Args:
            parallel: there may be several.
            token_id: the id of the added token that is written so, None if there is none.

        Raises:
            RequestError: the template is not known to write calls, or a tool cannot be enforced.
        """
        if self.tools is None:
            raise RequestError(
                "the model's chat template writes tool calls in no syntax that is known here",
                param="tools",
            )
        return self.tools.grammar(tools, parallel=parallel, token_id=token_id)


class _SyntaxParser:
    """Reads one answer; see `Parser`."""

    def __init__(
        self, syntax: OutputSyntax, tools: Sequence[Tool], thinking: bool, calls_only: bool
    ) -> None:
        self._source = Source()
        self._out = Gathered(calls=bool(tools), content=not calls_only)
        marks: list[str] = []
        if syntax.reasoning is not None:
            marks += (syntax.reasoning.open, syntax.reasoning.close)
        if syntax.tools is not None and (tools or syntax.tools.whole):
            marks += syntax.tools.marks
        self._marks = tuple(marks)
        self._steps = _read(self._source, self._out, syntax, tools, thinking)
        self._advance()

    @property
    def reasoning(self) -> bool:
        """Tell whether the next characters belong to a thinking block."""
        return self._out.thinking

    @property
    def aside(self) -> bool:
        """Tell whether what came last is no content."""
        return self._out.aside

    def text(self, text: str) -> Parsed:
        """Return what the next characters settle."""
        if not text:
            return Parsed()
        self._source.push(text)
        return self._advance()

    def special(self, token_id: int, text: str) -> Parsed:
        """Return what a control token settles: it is shown nowhere, and read where it is a mark."""
        return self.text(text) if any(text in mark for mark in self._marks) else Parsed()

    def finish(self) -> Parsed:
        """Return what was held back, at the end of the answer."""
        self._source.end()
        next(self._steps, None)
        self._out.end()
        return self._out.parsed()

    def _advance(self) -> Parsed:
        next(self._steps, None)
        return self._out.parsed()


def _read(
    source: Source,
    out: Gathered,
    syntax: OutputSyntax,
    tools: Sequence[Tool],
    thinking: bool,
) -> Steps[None]:
    """Read one answer: thinking blocks first, then content and calls."""
    whole = syntax.tools is not None and syntax.tools.whole
    if syntax.reasoning is not None and (thinking or not whole):
        yield from _read_thinking(source, out, syntax.reasoning, thinking)
    if syntax.tools is not None and (tools or whole):
        yield from syntax.tools.read(source, out, tools)
    yield from source.until((), out.say)


def _read_thinking(
    source: Source, out: Gathered, syntax: ReasoningSyntax, thinking: bool
) -> Steps[None]:
    """Read the thinking blocks at the beginning; in later text such marks are content."""
    if not thinking:
        source.note()
        yield from source.space()
        thinking = (yield from source.at([syntax.open.rstrip()])) is not None
        before = source.noted()
        if not thinking:
            out.say(before)
            return
    while thinking:
        out.enter()
        if (yield from source.at([syntax.open.rstrip()])) is not None:
            source.take(len(syntax.open.rstrip()))
        yield from source.until([syntax.close], out.think)
        out.leave()
        yield from source.space()
        thinking = (yield from source.at([syntax.open.rstrip()])) is not None
