"""Byte-level BPE from the vocabulary, merges and token types of a GGUF file.

The splitting rules are those of llama.cpp's ``llama-vocab.cpp`` for each ``tokenizer.ggml.pre``;
they agree with the tokenizers of the models' authors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers

from edge_llm.errors import TokenizerError

_T = TypeVar("_T")

# tokenizer.ggml.token_type
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True)
class _Rules:
    """How text is cut before merging: each pattern cuts the pieces that the one before it left.

    Attributes:
        whole_words: a piece that is a token is taken as it is, without merging.
        nfc: text is composed first.
        adds_bos: BOS belongs before raw text unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    nfc: bool = False
    adds_bos: bool = False


_DEFAULT = _Rules((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))
_PRE = {
    "default": _DEFAULT,
    "gpt-2": _Rules((_GPT2,)),
    # Every numeric character stands alone, as all of Unicode's: ' ½' is ' ', '½'.
    "smollm": _Rules((r"\p{N}", _GPT2)),
    "llama-bpe": _Rules((_LLAMA3,), whole_words=True, adds_bos=True),
    "qwen2": _Rules((_QWEN2,), nfc=True),
}


def build_bpe(metadata: Mapping[str, object]) -> tuple[hf.Tokenizer, bool]:
    """The tokenizer, and whether its kind puts BOS before raw text.

    Raises:
        TokenizerError: keys missing or damaged, or an unknown pre-tokenizer, by name.
    """
    # Files from before the key existed have none; llama.cpp reads them as "default" too.
    pre = metadata.get("tokenizer.ggml.pre", "default")
    rules = _PRE.get(str(pre))
    if rules is None:
        raise TokenizerError(
            f"tokenizer.ggml.pre {pre!r} is not supported; expected one of {', '.join(_PRE)}"
        )
    tokens = _list(metadata, "tokens", str)
    types = _list(metadata, "token_type", int)
    if len(types) != len(tokens):
        raise TokenizerError(f"tokenizer.ggml has {len(tokens)} tokens and {len(types)} types")
    tokens = tokens[: _end(tokens, types)]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise TokenizerError(f"tokenizer.ggml.tokens holds {twice!r} twice")

    merges = [_merge(line) for line in _list(metadata, "merges", str)]
    try:
        model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rules.whole_words)
    except Exception as exc:  # the library raises bare Exception
        raise TokenizerError(f"tokenizer.ggml.merges do not fit the vocabulary: {exc}") from exc
    tokenizer = hf.Tokenizer(model)
    if rules.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(hf.Regex(pattern), "isolated") for pattern in rules.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            hf.AddedToken(token, special=kind != _USER_DEFINED, normalized=False)
            for token, kind in zip(tokens, types, strict=False)
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        ]
    )
    return tokenizer, rules.adds_bos


def _end(tokens: list[str], types: list[int]) -> int:
    """How many ids have a token: converters fill the vocabulary up to the rows of the embedding,
    older ones without marking what they filled in as unused."""
    end = len(tokens)
    while end and (types[end - 1] == _UNUSED or tokens[end - 1] == f"[PAD{end - 1}]"):
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
