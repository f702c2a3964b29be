"""Tokenizers of tiktoken files: lines of a token in base64 and its rank.

The file holds neither the pattern that cuts text nor the special tokens; both are known by the
number of ranks. Sources: Meta's and Qwen's published tokenizer code. Llama 3's specials have the
names of 3.1 and later, which gave names to four that were reserved before.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass

import tokenizers as hf
from tokenizers import decoders, models

from edge_llm.errors import TokenizerError
from edge_llm.tokenizers.bytelevel import bytes_to_token
from edge_llm.tokenizers.readers.added import Built, control_token, place
from edge_llm.tokenizers.readers.merges import rebuild_merges
from edge_llm.tokenizers.readers.patterns import rules_of

MAX_BYTES = 2**24  # the largest known files have 2**22
MAX_LINE = 1024


@dataclass(frozen=True, slots=True)
class _Layout:
    """The parts that a file lacks: the rules of ``patterns``, and the special tokens from the first
    free id on. ``spares`` follow them where the checkpoint lists no tokens of its own."""

    model: str
    rules: str
    specials: tuple[str, ...]
    spares: tuple[str, ...]
    bos: str | None
    eos: str


def _llama3_specials() -> tuple[str, ...]:
    named = {
        0: "begin_of_text",
        1: "end_of_text",
        4: "finetune_right_pad_id",
        6: "start_header_id",
        7: "end_header_id",
        8: "eom_id",
        9: "eot_id",
        10: "python_tag",
    }
    reserved = (f"reserved_special_token_{number}" for number in range(256))
    return tuple(f"<|{named.get(place) or next(reserved)}|>" for place in range(256))


_LAYOUTS = {
    128_000: _Layout(
        "Llama 3", "llama-bpe", _llama3_specials(), (), "<|begin_of_text|>", "<|end_of_text|>"
    ),
    151_643: _Layout(
        "Qwen",
        "qwen2",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        tuple(f"<|extra_{number}|>" for number in range(205)),
        None,
        "<|endoftext|>",
    ),
}


def is_tiktoken(data: bytes) -> bool:
    """Return whether a file begins with a token in base64 and its rank."""
    line = data[:MAX_LINE].partition(b"\n")[0].split()
    return len(line) == 2 and line[1].isdigit() and _decoded(line[0]) is not None


def build_tiktoken(data: bytes, listed: Mapping[int, hf.AddedToken]) -> Built:
    """Return the tokenizer of a file, with the tokens that the checkpoint lists beside it; these go
    before special tokens of the same id or text.

    Raises:
        TokenizerError: a damaged file, one whose pattern and specials are not known, or listed
            tokens that do not fit.
    """
    vocabulary: dict[str, int] = {bytes_to_token(token): i for token, i in _ranks(data).items()}
    count = len(vocabulary)
    layout = _LAYOUTS.get(count)
    if layout is None:
        known = " or ".join(f"{count:,} ({layout.model})" for count, layout in _LAYOUTS.items())
        raise TokenizerError(f"a tiktoken file of {count:,} tokens is not known, expected {known}")
    merges = rebuild_merges(vocabulary)

    names = {token.content for token in listed.values()}
    specials = layout.specials if listed else layout.specials + layout.spares
    added = {i: control_token(text) for i, text in enumerate(specials, count) if text not in names}
    added |= listed
    place(vocabulary, added)
    tokenizer = hf.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    rules = rules_of(layout.rules)
    rules.apply(tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([token for _, token in sorted(added.items())])
    return Built(tokenizer, layout.bos, layout.eos, rules.adds_bos)


def _ranks(data: bytes) -> dict[bytes, int]:
    if len(data) > MAX_BYTES:
        raise TokenizerError(f"tiktoken file: {len(data)} bytes, at most {MAX_BYTES} can be")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        token = _decoded(parts[0]) if len(line) <= MAX_LINE and len(parts) == 2 else None
        if not token or parts[1] != b"%d" % len(ranks) or token in ranks:
            raise TokenizerError(
                f"tiktoken file, line {number}: expected a new token in base64 and the rank "
                f"{len(ranks)}, got {line[:80]!r}"
            )
        ranks[token] = len(ranks)
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise TokenizerError(f"tiktoken file: no token for the byte {missing[0]:#04x}")
    return ranks


def _decoded(text: bytes) -> bytes | None:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None
