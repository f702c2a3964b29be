"""gpt-oss's Harmony: an answer is messages in channels, some of which go to tools."""

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
    mark,
    rules,
    sequence,
)
from edge_llm.tokenizers.output.source import Source, Steps
from edge_llm.tokenizers.output.syntax import TokenId, ToolGrammar

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
CONSTRAIN = "<|constrain|>"
# Between thinking and content.
CONTENT_HEAD = f"{START}assistant{CHANNEL}final{MESSAGE}"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", START)
_HEADS = (CHANNEL, MESSAGE, CONSTRAIN, "assistant", " to=", *_ENDS)


@dataclass(frozen=True, slots=True)
class Harmony:
    """Messages in channels: ``analysis`` is thinking, what has a recipient is a call, the rest is
    content."""

    @property
    def whole(self) -> bool:
        """Return True: thinking is a message as well."""
        return True

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts that are written around messages and in their heads."""
        return (CHANNEL, MESSAGE, CONSTRAIN, *_ENDS)

    def read(self, source: Source, out: Gathered, tools: Sequence[Tool]) -> Steps[None]:
        """Read messages to the end of the answer.

        Text outside of messages is content. Without tools, so is what was to go to one.
        """
        while not source.exhausted:
            if (yield from source.at(_HEADS)) is None:
                end = yield from source.until((CHANNEL, *_ENDS), out.say)
                if end == CHANNEL:
                    source.back(end)
                continue
            head: list[str] = []
            end = yield from source.until((MESSAGE, *_ENDS), head.append)
            if end != MESSAGE:
                continue  # the head of a message that has none, or its end
            yield from self._read_message(source, out, "".join(head), bool(tools))

    def _read_message(
        self, source: Source, out: Gathered, head: str, may_call: bool
    ) -> Steps[None]:
        recipient = re.search(r"\bto=([^\s<]+)", head)
        channel = head.partition(CHANNEL)[2].split()
        if recipient is not None and may_call and recipient[1] != "assistant":
            out.call(recipient[1].removeprefix("functions."))
            begun = (yield from source.at(_ENDS)) is None and not source.exhausted
            yield from source.until(_ENDS, out.arguments)
            if not begun:
                out.arguments("{}")
        elif channel[:1] == ["analysis"] and recipient is None:
            out.enter()
            yield from source.until(_ENDS, out.think)
            out.leave()
        else:
            yield from source.until(_ENDS, out.say)

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, token_id: TokenId) -> ToolGrammar:
        """Return what calls of these tools look like; see `ToolSyntax`. A message of thinking may
        come first; several calls in one answer are not in the syntax."""
        check_names(tools)
        names = either(f"call_{index}" for index in range(len(tools)))
        channel, message, called = (mark(text, token_id) for text in (CHANNEL, MESSAGE, "<|call|>"))
        kind = f'(" "? {mark(CONSTRAIN, token_id)} "json" | " json")?'
        named = {
            "call": names,
            "thinking": sequence(
                channel, '"analysis"', message, "TEXT", mark("<|end|>", token_id),
                mark(START, token_id), '"assistant"',
            ),
            "TEXT": "/(?s:.*)/",
            "turn": sequence(mark(START, token_id), '"assistant"'),  # where it has thought before
            # The recipient is told before the channel or behind it.
            "head": f'({channel} "commentary")? " to=functions."',
            "body": f'({channel} "commentary")? {kind} {message}',
        }  # fmt: skip
        for index, tool in enumerate(tools):
            named[f"call_{index}"] = sequence(
                f'"{tool.name}"', "body", f"arguments_{index}", called
            )
            named[f"arguments_{index}"] = json_rule(arguments_schema(tool, index))
        behind = {
            rule: of for rule, of in named.items() if rule not in ("thinking", "TEXT", "head")
        }
        return ToolGrammar(
            rules("turn? thinking? head call", named), rules("call", behind), (" to=functions.",)
        )
