"""SentencePiece BPE: spaces written as ``▁``, scores instead of merges, bytes for the rest.

Agrees with the ``sentencepiece`` library: the neighbours whose piece has the best score are joined
first; control, unknown and byte pieces are never the result of joining; a character without a
piece becomes the bytes of its UTF-8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers

from edge_llm.errors import TokenizerError
from edge_llm.tokenizers.readers.added import place
from edge_llm.tokenizers.readers.merges import rebuild_merges
from edge_llm.tokenizers.tokenizer import library_errors

SPACE = "▁"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = PIECE_TYPES = range(1, 7)


@dataclass(frozen=True, slots=True)
class Pieces:
    """A vocabulary. ``texts``, ``scores`` and ``types`` go by id; ``prefix_space`` puts a space
    before text; ``bos`` and ``eos`` are pieces. ``merges`` say what is joined, in their order,
    where that does not follow from the scores."""

    texts: list[str]
    scores: list[float]
    types: list[int]
    prefix_space: bool
    bos: str | None
    eos: str | None
    merges: list[tuple[str, str]] | None = None


def build_sentencepiece(
    pieces: Pieces,
    listed: Mapping[int, hf.AddedToken],
    *,
    prefix_first_only: bool | None = None,
) -> hf.Tokenizer:
    """Return the tokenizer of a vocabulary, with the tokens that the checkpoint lists beside it.

    Args:
        prefix_first_only: text after a special token gets no space of its own (``legacy`` false
            in ``transformers``). By default so where the vocabulary has ``[INST]`` as a control
            token, as Mistral's from version 2 on; Meta's models know no tokens in mid-text but
            BOS and EOS, after which a text begins anew.

    Raises:
        TokenizerError: pieces that do not go together, or listed tokens that do not fit them.
    """
    vocabulary = {text: token_id for token_id, text in enumerate(pieces.texts)}
    if len(vocabulary) != len(pieces.texts):
        twice = next(t for i, t in enumerate(pieces.texts) if vocabulary[t] != i)
        raise TokenizerError(f"the vocabulary holds {twice!r} twice")
    if not all(map(math.isfinite, pieces.scores)):
        raise TokenizerError("a score of the vocabulary is not a finite number")
    kinds = list(zip(pieces.texts, pieces.types, strict=True))
    merges = rebuild_merges(_ranks(pieces)) if pieces.merges is None else pieces.merges
    unknown = next((text for text, kind in kinds if kind == UNKNOWN), None)
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    has_bytes = all(text in vocabulary for text in spelled)
    if not has_bytes and (unknown is None or BYTE in pieces.types):
        missing = next(text for text in spelled if text not in vocabulary)
        raise TokenizerError(f"the vocabulary has no piece {missing!r}, nor one for the unknown")

    rstrip = "<|placeholder1|>" in vocabulary  # Phi-3's chat tokens take the line end with them
    added = {
        token_id: hf.AddedToken(
            text,
            special=kind != USER_DEFINED,
            normalized=False,
            rstrip=rstrip and text not in ("<unk>", "<s>", "<|endoftext|>"),
        )
        for token_id, (text, kind) in enumerate(kinds)
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    }
    added |= listed
    place(vocabulary, added)
    with library_errors("the merges do not fit the vocabulary"):
        model = models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=has_bytes,
        )
    tokenizer = hf.Tokenizer(model)
    if prefix_first_only is None:
        prefix_first_only = ("[INST]", CONTROL) in kinds
    _set_spaces(tokenizer, pieces.prefix_space, prefix_first_only)
    tokenizer.add_tokens([token for _, token in sorted(added.items())])
    return tokenizer


def _ranks(pieces: Pieces) -> dict[str, float]:
    """Return the pieces that text is joined to, by the order in which that happens."""
    joined = [
        (-score, token_id, text)
        for token_id, (text, score, kind) in enumerate(
            zip(pieces.texts, pieces.scores, pieces.types, strict=True)
        )
        if kind == NORMAL
    ]
    return {text: rank for rank, (_, _, text) in enumerate(sorted(joined))}


def _set_spaces(tokenizer: hf.Tokenizer, prefix: bool, first_only: bool) -> None:
    """Set what writes spaces as ``▁``, and back."""
    if prefix and first_only:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=SPACE, prepend_scheme="first", split=False
        )
    else:
        before = [normalizers.Prepend(SPACE)] if prefix else []
        tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(content=" ", left=1)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
