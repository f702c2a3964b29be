"""Answers taken apart by the parser of a syntax, in one piece or in many."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from edge_llm.parsed import Parsed, Parser, Tool
from edge_llm.tokenizers.output.syntax import OutputSyntax

WEATHER = Tool(
    "weather",
    "Weather of a <city>",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "é & so on"},
            "days": {"type": "integer"},
            "dry": {"type": "boolean"},
            "where": {"type": "object"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
    },
)
NOW = Tool("now-2", "The time", {"type": "object", "properties": {}})
TOOLS = [WEATHER, NOW]


class Answer(NamedTuple):
    """The whole of an answer."""

    content: str
    reasoning: str
    calls: list[tuple[str, str]]

    @property
    def values(self) -> list[tuple[str, Any]]:
        """The calls with their arguments as values."""
        return [(name, json.loads(arguments)) for name, arguments in self.calls]


def offers(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return tools as OpenAI's requests have them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            },
        }
        for tool in tools
    ]


def collect(parsed: Iterable[Parsed]) -> Answer:
    """Return the whole of an answer, with the rules for deltas checked."""
    content, reasoning = "", ""
    calls: list[list[str]] = []
    for part in parsed:
        content += part.content
        reasoning += part.reasoning
        for delta in part.tool_calls:
            if delta.name is not None:
                assert delta.index == len(calls)
                calls.append([delta.name, ""])
            assert delta.index == len(calls) - 1
            calls[-1][1] += delta.arguments
    return Answer(content, reasoning, [(name, arguments) for name, arguments in calls])


def read(
    syntax: OutputSyntax,
    text: str | Sequence[str],
    *,
    tools: Sequence[Tool] = TOOLS,
    thinking: bool = False,
) -> Answer:
    """Return an answer that came as one text, or as these."""
    parser: Parser = syntax.parser(tools=tools, thinking=thinking)
    parts = [parser.text(part) for part in ([text] if isinstance(text, str) else text)]
    return collect([*parts, parser.finish()])


def cut(text: str, places: Iterable[int]) -> list[str]:
    """Return the text in pieces, cut at these places."""
    places = sorted({place % (len(text) + 1) for place in places})
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
