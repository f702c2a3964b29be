"""The token ids of what a model reads for calibration."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ConfigError, RequestError, TemplateError, TokenizerError
from edge_llm.export.origin.calibration import Piece, as_plain_text
from edge_llm.tokenizers.chat.encode import encode_chat
from edge_llm.tokenizers.chat.history import history_of
from edge_llm.tokenizers.chat.plain_tools import told_in_text
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.readers.convert import TokenizerDocument
from edge_llm.tokenizers.tokenizer import Tokenizer

Int32 = NDArray[np.int32]

TOKENS = 4096  # more change little that could be measured (docs/log.md)
LEAST_TOKENS = 256
# What templates that write a date are told, so that a program is a function of its sources.
_TODAY = datetime(2026, 1, 1)


def calibration_ids(pieces: Sequence[Piece], document: TokenizerDocument) -> tuple[Int32, str]:
    """Return the first `TOKENS` ids of some pieces, and a note on what they are.

    Conversations go through the model's chat template, whose control tokens are read as such; texts
    in a row are one text. All is one text where the model has no template.

    Raises:
        ConfigError: they have less than `LEAST_TOKENS` tokens, or the chat template does not take a
            conversation.
        TokenizerError: a text cannot be encoded.
    """
    tokenizer = Tokenizer(document.json, document.facts)
    ids: list[int] = []
    read = 0  # conversations
    template = _template_of(document, tokenizer) if any(p.messages for p in pieces) else None
    groups = groupby(pieces, lambda piece: template is not None and bool(piece.messages))
    for chats, group in groups:
        if template is None or not chats:
            ids += tokenizer.encode(as_plain_text(list(group))) if len(ids) < TOKENS else []
            continue
        for piece in group:
            if len(ids) < TOKENS:
                ids += _chat_ids(piece, tokenizer, template)
                read += 1
    if len(ids) < LEAST_TOKENS:
        raise ConfigError(
            f"calibration: the text has {len(ids)} tokens, expected at least {LEAST_TOKENS}"
        )
    taken = np.array(ids[:TOKENS], np.int32)
    note = f"calibration: {len(taken)} tokens"
    if read:
        note += f", with {read} conversations in the model's chat template"
    elif any(piece.messages for piece in pieces):
        note += ", conversations as plain text, since the model has no chat template"
    return taken, note


def _template_of(document: TokenizerDocument, tokenizer: Tokenizer) -> ChatTemplate | None:
    source, facts = document.chat_template, document.facts
    if source is None:
        return None
    bos, eos = tokenizer.token_text(facts.bos_id), tokenizer.token_text(facts.eos_id)
    try:
        return ChatTemplate(source, bos=bos, eos=eos, now=lambda: _TODAY)
    except TemplateError as exc:
        raise ConfigError(f"calibration: {exc}", hint=_HINT) from exc


def _chat_ids(piece: Piece, tokenizer: Tokenizer, template: ChatTemplate) -> list[int]:
    history = history_of(template.source)
    messages, tools = history.prepared(piece.messages), list(piece.tools) or None
    try:
        if not template.takes_tools:
            messages, tools = told_in_text(messages, tools or (), system=history.system), None
        return encode_chat(tokenizer, template, messages, tools=tools, add_generation_prompt=False)
    except (TemplateError, TokenizerError, RequestError) as exc:
        raise ConfigError(
            f"calibration: the conversation in line {piece.line}: {exc}", hint=_HINT
        ) from exc


_HINT = "--chat-template gives the model another one; a text without conversations needs none"
