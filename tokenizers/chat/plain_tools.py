"""Tools for templates that know none: told in the system message, or in the first one of the user
where there is no such thing, in the syntax of Hermes.

Every chat model can be held to that syntax by a grammar; whether it calls wisely is its own affair.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

SYNTAX = "hermes"  # of `edge_llm.tokenizers.output.table`

_OFFER = """You can call functions. These are there, each with a JSON schema of its arguments:
<tools>
{tools}
</tools>
To call one, answer with a JSON object of its name and its arguments between these marks:
<tool_call>
{{"name": <name>, "arguments": <object>}}
</tool_call>"""


def told_in_text(
    messages: Sequence[Mapping[Any, Any]],
    tools: Sequence[Mapping[Any, Any]],
    *,
    system: bool = True,
) -> list[dict[Any, Any]]:
    """Return a conversation without tools that says the same in texts.

    Args:
        messages: of any role, ``tool`` too, and with ``tool_calls``.
        tools: as chat templates read them; without any, only what was called is put into words.
        system: the template takes a system message.
    """
    told: list[dict[Any, Any]] = []
    before = None
    for message in messages:
        role = message.get("role")
        if role == "tool":
            result = f"<tool_response>\n{_text(message)}\n</tool_response>"
            if before == "tool":  # templates without tools want turns to alternate
                told[-1]["content"] += f"\n{result}"
            else:
                told.append({"role": "user", "content": result})
        else:
            told.append(_with_calls(message) if message.get("tool_calls") else dict(message))
        before = role
    if not tools:
        return told
    functions = (tool.get("function", tool) for tool in tools)
    offer = _OFFER.format(tools="\n".join(json.dumps(f, ensure_ascii=False) for f in functions))
    if told and told[0].get("role") == "system" and system:
        said = f"{_text(told[0])}\n\n{offer}".lstrip()
        return [{**told[0], "content": said}, *told[1:]]
    asked = next((i for i, message in enumerate(told) if message.get("role") == "user"), None)
    if asked is not None and not system:
        said = f"{offer}\n\n{_text(told[asked])}"
        return [*told[:asked], {**told[asked], "content": said}, *told[asked + 1 :]]
    return [{"role": "system", "content": offer}, *told]


def _with_calls(message: Mapping[Any, Any]) -> dict[Any, Any]:
    parts = [_text(message)]
    for call in message["tool_calls"]:
        function = call.get("function", call)
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        name = json.dumps(function.get("name"), ensure_ascii=False)
        body = f'{{"name": {name}, "arguments": {arguments}}}'
        parts.append(f"<tool_call>\n{body}\n</tool_call>")
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(filter(None, parts))}


def _text(message: Mapping[Any, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""
