"""What a chat template does, found out by rendering it: how it writes calls, whether a caller can
choose to think."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from edge_llm.errors import TemplateError
from edge_llm.parsed import Tool
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.output.syntax import OutputSyntax, ReasoningSyntax, ToolSyntax

_VARIABLES = ("enable_thinking", "thinking")
_EFFORT_VARIABLE = "reasoning_effort"
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_FREE_EFFORTS = ("low", "medium", "high")  # of a template that writes any text
_NO_EFFORT = "vyqzj"
_SAID = "kzwqx"
_CHAT = [{"role": "user", "content": _SAID}]
_KEY, _VALUE = "place", "wqzkx"
_THOUGHT = "zzkqw"
TOOL = Tool(
    "look_up",
    "Look up",
    {"type": "object", "properties": {_KEY: {"type": "string"}}, "required": [_KEY]},
)
_OFFER = {
    "type": "function",
    "function": {
        "name": TOOL.name,
        "description": TOOL.description,
        "parameters": TOOL.parameters,
    },
}
_CALL = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": TOOL.name, "arguments": {_KEY: _VALUE}},
}


def with_switches(reasoning: ReasoningSyntax, template: ChatTemplate) -> ReasoningSyntax:
    """Return how a model thinks, with what its template does about it."""
    plain = _rendered(template)
    if plain is None:
        return reasoning
    reasoning = replace(reasoning, opened=reasoning.opened_by(plain), gap=_gap(reasoning, template))
    for variable in _VARIABLES:
        if variable not in template.source:
            continue
        on, off = (_rendered(template, **{variable: value}) for value in (True, False))
        if on is not None and off is not None and on != off:
            reasoning = replace(reasoning, variable=variable, default=plain != off)
            break
    efforts = _efforts(template, plain) if _EFFORT_VARIABLE in template.source else ()
    if not efforts:
        return reasoning
    return replace(reasoning, effort_variable=_EFFORT_VARIABLE, efforts=efforts)


def written_turn(template: ChatTemplate) -> str | None:
    """Return an assistant's turn with a call of `TOOL`, as a template writes it, and what stands
    around it; None if it writes no calls."""
    message = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
    try:
        text = template.render([*_CHAT, message], [_OFFER], add_generation_prompt=False)
    except TemplateError:
        return None
    turn = text[text.rfind(_SAID) + len(_SAID) :]
    return turn if _VALUE in turn else None


def reads(row: ToolSyntax, turn: str) -> bool:
    """Tell whether a syntax finds the call in `written_turn`."""
    begin = min((at for mark in row.marks if (at := turn.find(mark)) >= 0), default=-1)
    if begin < 0:
        begin = max(turn.find("{"), 0)
    parser = OutputSyntax(None, row).parser(tools=[TOOL])
    deltas = [*parser.text(turn[begin:]).tool_calls, *parser.finish().tool_calls]
    names = [delta.name for delta in deltas if delta.name is not None]
    arguments = "".join(delta.arguments for delta in deltas)
    try:
        return names == [TOOL.name] and json.loads(arguments) == {_KEY: _VALUE}
    except ValueError:
        return False


def _gap(reasoning: ReasoningSyntax, template: ChatTemplate) -> str:
    """Return the white space behind a thinking block, none where the template writes no block."""
    message = {"role": "assistant", "content": _VALUE, "reasoning_content": _THOUGHT}
    try:
        text = template.render([*_CHAT, message], add_generation_prompt=False)
    except TemplateError:
        return ""
    between = text.rpartition(_THOUGHT)[2].partition(_VALUE)[0]
    gap = between.rpartition(reasoning.close)[2]
    return "" if gap.strip() or reasoning.close not in between else gap


def _efforts(template: ChatTemplate, plain: str) -> tuple[str, ...]:
    """Return the efforts that make a difference to a template."""
    texts = {effort: _rendered(template, **{_EFFORT_VARIABLE: effort}) for effort in _EFFORTS}
    other = _rendered(template, **{_EFFORT_VARIABLE: _NO_EFFORT})
    if other is not None and _NO_EFFORT in other:
        return tuple(effort for effort in _FREE_EFFORTS if texts[effort] is not None)
    known = {effort: text for effort, text in texts.items() if text is not None}
    if other is not None:  # it takes anything: what it does not know is as if it were not given
        known = {effort: text for effort, text in known.items() if text not in (other,)}
    return tuple(known) if {plain, other, *known.values()} - {plain, None} else ()


def _rendered(template: ChatTemplate, **variables: Any) -> str | None:
    try:
        return template.render(_CHAT, **variables)
    except TemplateError:
        return None
