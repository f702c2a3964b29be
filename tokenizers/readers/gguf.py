"""Tokenizers from the vocabulary, merges or scores, and token types of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import tokenizers as hf
from tokenizers import decoders, models

from edge_llm.errors import TokenizerError
from edge_llm.tokenizers.readers.patterns import rules_of
from edge_llm.tokenizers.readers.sentencepiece import (
    CONTROL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Pieces,
    build_sentencepiece,
)
from edge_llm.tokenizers.tokenizer import library_errors

_T = TypeVar("_T")


def build_bpe(metadata: Mapping[str, object]) -> tuple[hf.Tokenizer, bool]:
    """Return the tokenizer, and whether its kind puts BOS before raw text.

    Raises:
        TokenizerError: keys missing or damaged, or an unknown pre-tokenizer, by name.
    """
    # Files from before the key existed have none; llama.cpp reads them as "default" too.
    rules = rules_of(metadata.get("tokenizer.ggml.pre", "default"))
    tokens, types = _tokens(metadata)
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise TokenizerError(f"tokenizer.ggml.tokens holds {twice!r} twice")

    merges = [_merge(line) for line in _list(metadata, "merges", str)]
    with library_errors("tokenizer.ggml.merges do not fit the vocabulary"):
        model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rules.whole_words)
    tokenizer = hf.Tokenizer(model)
    rules.apply(tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            hf.AddedToken(token, special=kind != USER_DEFINED, normalized=False)
            for token, kind in zip(tokens, types, strict=False)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer, rules.adds_bos


def build_spm(metadata: Mapping[str, object]) -> tuple[hf.Tokenizer, bool]:
    """Return the tokenizer, and whether its kind puts BOS before raw text.

    Raises:
        TokenizerError: keys missing or damaged.
    """
    tokens, types = _tokens(metadata)
    scores = _list(metadata, "scores", float)
    if len(scores) < len(tokens):
        raise TokenizerError(f"tokenizer.ggml has {len(tokens)} tokens and {len(scores)} scores")
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    pieces = Pieces(tokens, scores[: len(tokens)], types, bool(prefix), None, None)
    return build_sentencepiece(pieces, {}), True


def build_merged_spm(metadata: Mapping[str, object]) -> tuple[hf.Tokenizer, bool]:
    """Return the tokenizer of Gemma 4, SentencePiece's with merges in the place of scores, and
    whether its kind puts BOS before raw text.

    Raises:
        TokenizerError: keys missing or damaged.
    """
    tokens, types = _tokens(metadata)
    merges = [_merge(line) for line in _list(metadata, "merges", str)]
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", False)
    pieces = Pieces(tokens, [0.0] * len(tokens), types, bool(prefix), None, None, merges)
    return build_sentencepiece(pieces, {}), True


def _tokens(metadata: Mapping[str, object]) -> tuple[list[str], list[int]]:
    """Return text and type of every id that has a token."""
    tokens = _list(metadata, "tokens", str)
    types = _list(metadata, "token_type", int)
    if len(types) != len(tokens):
        raise TokenizerError(f"tokenizer.ggml has {len(tokens)} tokens and {len(types)} types")
    end = _end(tokens, types)
    return tokens[:end], types[:end]


def _end(tokens: list[str], types: list[int]) -> int:
    """Return how many ids have a token: converters fill the vocabulary up to the rows of the
    embedding, older ones without marking what they filled in as unused."""
    end = len(tokens)
    while end and (types[end - 1] == UNUSED or tokens[end - 1] == f"[PAD{end - 1}]"):
        end -= 1
    if not end:
        raise TokenizerError("tokenizer.ggml.tokens holds no token")
    return end


def _merge(line: str) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    if not left or not right or " " in right:
        raise TokenizerError(f"tokenizer.ggml.merges: expected two tokens, got {line!r}")
    return left, right


def _list(metadata: Mapping[str, object], name: str, kind: type[_T]) -> list[_T]:
    values = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise TokenizerError(f"tokenizer.ggml.{name} is missing or not a list of {kind.__name__}")
    return values
