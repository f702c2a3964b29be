"""Conversations in OpenAI's shape, made into what a chat template takes of calls and their results.

Templates differ: most want arguments as objects, Mistral's ids have nine characters, Llama's write
one call a turn. What a template takes is found out by rendering it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.template import ChatTemplate

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SHORT_ID = 9  # characters, of Mistral's templates
_SAID, _FIRST, _SECOND, _THOUGHT = "kzwqx", "wqzkx", "xqkzw", "zzkqw"
_REASONING = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class History:
    """What a chat template takes.

    Attributes:
        objects: the arguments of calls as objects, not as JSON text.
        several: more than one call in a turn.
        short_ids: ids of nine letters and digits alone.
        both: content and thinking beside a call.
        developer: the role "developer"; it is "system" elsewhere.
        system: a system message.
        calls: calls at all, of a template that takes tools.
    """

    objects: bool = True
    several: bool = True
    short_ids: bool = False
    both: bool = True
    developer: bool = False
    system: bool = True
    calls: bool = True

    def prepared(self, messages: Sequence[Any]) -> list[Any]:
        """Return the messages as the template takes them.

        Contents become texts (null is an empty one, parts of type "text" are joined), results get
        the name of the tool whose call they answer. Arguments that are no JSON object are an object
        of one entry, ``arguments``, with the text of them: what a model has written once is no
        error of the one who repeats it. What is not in OpenAI's shape is left to the template.
        """
        names: dict[Any, Any] = {}  # of the tools, by the ids of their calls
        result: list[Any] = []
        for message in messages:
            if not isinstance(message, Mapping):
                result.append(message)
                continue
            message = dict(message)
            message["content"] = _text(message.get("content"))
            role = message.get("role")
            if role == "developer" and not self.developer:
                message["role"] = "system"
            calls = message.get("tool_calls")
            if role == "tool":
                identity = message.get("tool_call_id")
                if message.get("name") is None and _known(identity, names):
                    message["name"] = names[identity]
                if isinstance(identity, str):
                    message["tool_call_id"] = self._id(identity)
            elif isinstance(calls, list | tuple) and calls:
                message["tool_calls"] = [self._call(call, names) for call in calls]
                message = self._with_thinking(message)
            elif "tool_calls" in message:
                del message["tool_calls"]  # empty or null: templates ask whether it is there
            result.append(message)
        return result if self.several else list(_one_by_one(result))

    def _call(self, call: Any, names: dict[Any, Any]) -> Any:
        if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
            return call
        function = dict(call["function"])
        function["arguments"] = self._arguments(function.get("arguments"))
        identity = call.get("id")
        identity = identity if isinstance(identity, str) else f"call_{len(names)}"
        names[identity] = function.get("name")
        return {**call, "id": self._id(identity), "type": "function", "function": function}

    def _arguments(self, given: Any) -> Any:
        if not self.objects:
            return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        if isinstance(given, str):
            try:
                value = json.loads(given) if given.strip() else {}
            except (ValueError, RecursionError):
                value = None
            return value if isinstance(value, dict) else {"arguments": given}
        return {} if given is None else given

    def _id(self, identity: str) -> str:
        fits = len(identity) == _SHORT_ID and identity.isascii() and identity.isalnum()
        if not self.short_ids or fits:
            return identity
        digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()
        return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:_SHORT_ID])

    def _with_thinking(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return a message with calls, with what it says as the end of what was thought, where the
        template has a place for one of them."""
        thought = next((message[key] for key in _REASONING if message.get(key)), None)
        if self.both or not message["content"] or not isinstance(thought, str):
            return message
        rest = {key: value for key, value in message.items() if key not in _REASONING}
        return {**rest, "content": "", "reasoning_content": f"{thought}\n\n{message['content']}"}


@lru_cache(maxsize=64)
def history_of(template_source: str) -> History:
    """Return what a chat template takes of calls and their results."""
    try:
        template = ChatTemplate(template_source, bos="<s>", eos="</s>")
    except TemplateError:
        return History()

    user = {"role": "user", "content": _SAID}

    def rendered(*messages: dict[str, Any], tools: Sequence[dict[str, Any]] = ()) -> str:
        try:
            return template.render(messages, list(tools) or None, add_generation_prompt=False)
        except TemplateError:
            return ""

    def written(*calls: dict[str, Any], tools: Sequence[dict[str, Any]] = (), **more: Any) -> str:
        message = {"role": "assistant", "content": "", **more, "tool_calls": list(calls)}
        return rendered(user, message, tools=tools)

    short = "abcdefgh1"
    one = _FIRST in written(_probe(short, {"a": _FIRST}))
    as_text = _FIRST in written(_probe(short, json.dumps({"a": _FIRST})))
    two = written(_probe(short, {"a": _FIRST}), _probe("abcdefgh2", {"a": _SECOND}))
    call = _probe(short, {"a": _FIRST})
    thought = written(call, reasoning_content=_THOUGHT)
    said = written(call, content=_SAID)
    offer = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    return History(
        calls=one or as_text or _FIRST in written(call, tools=[offer]),
        objects=one or not as_text,
        several=not one or _SECOND in two,
        short_ids=one and _FIRST not in written(_probe("call_abc-1", {"a": _FIRST})),
        both=not (thought and said) or bool(written(call, content=_SAID, thinking=_THOUGHT)),
        developer="developer" in template_source,
        system=_FIRST in rendered({"role": "system", "content": _FIRST}, user)
        or _SAID not in rendered(user),
    )


def _probe(identity: str, arguments: Any) -> dict[str, Any]:
    function = {"name": "look_up", "arguments": arguments}
    return {"id": identity, "type": "function", "function": function}


def _text(content: Any) -> Any:
    """Return the content of a message as text, where it is null or parts of text."""
    if content is None:
        return ""
    if isinstance(content, list | tuple):
        texts = [_text_of(part) for part in content]
        if all(text is not None for text in texts):
            return "".join(filter(None, texts))
    return content


def _text_of(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") == "text":
        text = part.get("text")
        return text if isinstance(text, str) else None
    return None


def _known(identity: Any, names: Mapping[Any, Any]) -> bool:
    return isinstance(identity, str) and identity in names


def _one_by_one(messages: list[Any]) -> Iterator[Any]:
    """Yield messages of one call each, every one before its result."""
    place = 0
    while place < len(messages):
        message = messages[place]
        place += 1
        calls = message.get("tool_calls") if isinstance(message, Mapping) else None
        if not isinstance(calls, list) or len(calls) < 2:
            yield message
            continue
        results = []
        while place < len(messages) and _role(messages[place]) == "tool":
            results.append(messages[place])
            place += 1
        bare = {key: message[key] for key in message if key in ("role", "tool_calls")}
        for index, call in enumerate(calls):
            head = message if index == 0 else {**bare, "content": ""}
            yield {**head, "tool_calls": [call]}
            identity = call.get("id") if isinstance(call, Mapping) else None
            found = [one for one in results if one.get("tool_call_id") == identity]
            yield from found
            results = [one for one in results if one.get("tool_call_id") != identity]
        yield from results


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None
