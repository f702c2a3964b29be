"""Tokens that end an answer beside those that a checkpoint names as such."""

from __future__ import annotations

import json

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.readers.convert import TokenizerDocument

_QUESTION, _ANSWER = "What is the capital of France?", "It is Paris."


def more_stop_ids(
    named: tuple[int, ...], tokenizer: TokenizerDocument
) -> tuple[tuple[int, ...], list[str]]:
    """Return the ids that are not ``named`` and end an answer all the same, and a note for each:
    the token that the tokenizer ends texts with, and the one that the chat template ends an answer
    with."""
    ends = {
        "the tokenizer ends texts with": tokenizer.facts.eos_id,
        "the chat template ends an answer with": _turn_end(tokenizer),
    }
    found: dict[int, str] = {}
    for who, token in ends.items():
        if token is not None and token not in named:
            found.setdefault(token, f"stop ids: {token} added, which {who}")
    return tuple(found), list(found.values())


def _turn_end(document: TokenizerDocument) -> int | None:
    """Return the control token that the chat template writes right behind an answer, if it does."""
    if document.chat_template is None:
        return None
    control = {
        int(entry["id"]): str(entry["content"])
        for entry in json.loads(document.json)["added_tokens"]
        if entry["special"]
    }
    bos, eos = (
        None if token is None else control.get(token)
        for token in (document.facts.bos_id, document.facts.eos_id)
    )
    messages = [
        {"role": "user", "content": _QUESTION},
        {"role": "assistant", "content": _ANSWER},
    ]
    try:
        template = ChatTemplate(document.chat_template, bos=bos, eos=eos)
        text = template.render(messages, add_generation_prompt=False)
    except TemplateError:  # which is said when a chat uses it
        return None
    before, _, behind = text.rpartition(_ANSWER)
    written = [token for token in control if before and behind.lstrip().startswith(control[token])]
    return max(written, key=lambda token: len(control[token]), default=None)
