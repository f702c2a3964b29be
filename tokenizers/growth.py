"""Bounds on how much longer the stages of a ``tokenizer.json`` may make a text.

A few steps in a row, each harmless, turn one letter into more than any memory holds; the library
then ends the process, even while it loads a file whose added tokens are normalized. So each stage
is looked at before the library sees it: normalizer, pre-tokenizer, post-processor, added tokens and
the affixes of the model. (The library never decodes for us: ``spelling.py`` knows four decoders.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edge_llm.errors import TokenizerError

MAX_GROWTH = 256.0  # normalizer and pre-tokenizer together; SentencePiece's spelling has 12
MAX_COPIES = 4096.0  # tokens that a post-processor may make of one; real ones make 3
MAX_ADDED_BYTES = 2**24  # texts of all added tokens, normalized; the largest known have 2**17
MAX_ADDED = 1024  # bytes of one of them
MAX_AFFIX = 64  # bytes that a model may put before or after a part of a word

_Step = Mapping[str, Any]

# The factors are bytes of UTF-8 that a step makes of one byte, at most. Unicode publishes 3 for the
# canonical forms and 11 for the compatibility forms; lower case has 1.5; BERT takes accents apart,
# lowers case and puts spaces around each Chinese character; a byte-level alphabet has two bytes for
# each byte that it moves.
_NORMALIZERS = {
    "BertNormalizer": 8.0,
    "ByteLevel": 2.0,
    "Lowercase": 1.5,
    "NFC": 3.0,
    "NFD": 3.0,
    "NFKC": 11.0,
    "NFKD": 11.0,
    "Nmt": 1.0,
    "Strip": 1.0,
    "StripAccents": 1.0,
}
_CUTTERS = (
    "BertPreTokenizer",
    "CharDelimiterSplit",
    "Digits",
    "FixedLength",
    "Punctuation",
    "Split",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
)


def check_growth(data: bytes) -> float:
    """Return how many bytes normalizer and pre-tokenizer may make of one byte of text.

    Args:
        data: the bytes of a ``tokenizer.json``, or of what should be one.

    Raises:
        TokenizerError: a stage can make text longer than its bound, or cannot be made out.
    """
    try:
        document = json.loads(data)
        normalizer = normalizer_growth(document)
        words = math.prod(
            map(_word_factor, steps_of(document.get("pre_tokenizer"), "pretokenizers"))
        )
        copies = math.prod(map(_copies, steps_of(document.get("post_processor"), "processors")))
        added = [
            (token["content"], bool(token["normalized"]))
            for token in document.get("added_tokens") or ()
        ]
        model = document["model"]
        affixes = map(model.get, ("continuing_subword_prefix", "end_of_word_suffix"))
        longest = max(len((affix or "").encode()) for affix in affixes)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as exc:
        raise TokenizerError(
            f"not a readable tokenizer.json: {type(exc).__name__}: {str(exc)[:200]}"
        ) from exc
    _check(normalizer * words, MAX_GROWTH, "normalizer and pre-tokenizer could make text")
    _check(copies, MAX_COPIES, "the post-processor could make text")
    check_added(added, normalizer)
    if longest > MAX_AFFIX:
        raise TokenizerError(
            f"the model's prefix or suffix has {longest} bytes, at most {MAX_AFFIX} can be"
        )
    return normalizer * words


def normalizer_growth(document: _Step) -> float:
    """Return how many bytes the normalizer of a parsed ``tokenizer.json`` may make of one.

    Raises:
        LookupError, TypeError, AttributeError: it is damaged.
    """
    return math.prod(map(_factor, steps_of(document.get("normalizer"), "normalizers")))


def check_added(tokens: Iterable[tuple[str, bool]], growth: float) -> None:
    """Check the texts of added tokens, which the library normalizes and keeps in an automaton.

    Args:
        tokens: text of each token, and whether it is normalized.
        growth: bytes that the normalizer may make of one.

    Raises:
        TokenizerError: a text is too long, or all together may become so.
    """
    tokens = list(tokens)
    longest = max((len(text.encode()) for text, _ in tokens), default=0)
    if longest > MAX_ADDED:
        raise TokenizerError(f"an added token has {longest} bytes, at most {MAX_ADDED} can be")
    total = sum(len(text.encode()) * (growth if changes else 1.0) for text, changes in tokens)
    if total > MAX_ADDED_BYTES:
        raise TokenizerError(
            f"the added tokens could take {total:.3g} bytes, at most {MAX_ADDED_BYTES} can be"
        )


def _check(factor: float, limit: float, what: str) -> None:
    if factor > limit:
        raise TokenizerError(
            f"{what} {factor:.3g} times as long, at most {limit:g} times is supported"
        )


def steps_of(stage: _Step | None, key: str) -> Iterator[_Step]:
    """Yield the steps of a stage of a ``tokenizer.json``: ``Sequence`` may lie in each other, each
    with its steps under ``key``."""
    if stage is None:
        return
    if stage["type"] == "Sequence":
        for inner in stage[key]:
            yield from steps_of(inner, key)
    else:
        yield stage


def _factor(step: _Step) -> float:
    """Return how many bytes a step of a normalizer makes of one, at most."""
    match step["type"]:
        case "Replace":
            pattern = step["pattern"]
            found = len(pattern["String"].encode()) if "String" in pattern else 0
            # An expression can match nothing at all, before every character.
            put = len(step["content"].encode())
            return max(1.0, put / found) if found else 1.0 + put
        case "Prepend":
            return 1.0 + len(step["prepend"].encode())
        case kind:  # Precompiled is a table that may say anything
            return _NORMALIZERS.get(kind, math.inf)


def _word_factor(step: _Step) -> float:
    """Return how many bytes a step of a pre-tokenizer makes of one, at most: a prefix comes before
    each piece that the steps before it cut, and a piece can be one byte."""
    match step["type"]:
        case "ByteLevel":
            return 4.0 if step.get("add_prefix_space", True) else 2.0
        case "Metaspace":
            return 1.0 + len(step["replacement"].encode())
        case kind:
            return 1.0 if kind in _CUTTERS else math.inf


def _copies(step: _Step) -> float:
    """Return how many tokens a step of a post-processor makes of one, at most."""
    match step["type"]:
        case "TemplateProcessing":
            made = sum(len(token["ids"]) for token in step["special_tokens"].values())
            return float(max(len(step["single"]), len(step["pair"])) * (1 + made))
        case "BertProcessing" | "RobertaProcessing":
            return 3.0
        case "ByteLevel":
            return 1.0
        case _:
            return math.inf
