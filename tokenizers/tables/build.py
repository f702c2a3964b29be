"""Export's part of loading a tokenizer fast: tables that stand for its vocabulary and merges.

A *skeleton* is the same tokenizer with a BPE model that knows single characters alone, so that the
library still does what is intricate (normalization, added tokens, cutting into words) and gives
each word as its *units*. The native core merges them with a hash table of the merges.
docs/program-format.md specifies the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.abi import BPE_PROBES
from edge_llm.tokenizers.bytelevel import BYTE_OF
from edge_llm.tokenizers.tokenizer import parse

Array = NDArray[Any]
_Hashes = NDArray[np.uint64]

_LOAD = 0.7  # of a table, at most
_FIRST_HASH, _PRIME, _MIX = 0xCBF29CE484222325, 0x100000001B3, 0x9E3779B97F4A7C15


def tables_of(data: bytes) -> dict[str, Array]:
    """Return the tensors of a ``tokenizer.json`` as the library writes it, by name; none for one
    that only the library can run.

    Raises:
        TokenizerError: the library cannot read it.
    """
    document = json.loads(data)
    model = document["model"]
    if not _is_covered(document):
        return {}
    vocabulary: dict[str, int] = model["vocab"]
    skeleton, units = _skeleton(document)
    texts = _texts(document)
    tables: dict[str, Array] = {
        "tokenizer.skeleton": np.frombuffer(skeleton, np.uint8),
        "tokenizer.units": np.array(units, np.int32),
        "tokenizer.offsets": np.cumsum([0, *map(len, texts)], dtype=np.int64).astype(np.int32),
        "tokenizer.texts": np.frombuffer(b"".join(texts), np.uint8),
        "tokenizer.merges": _merges(model["merges"], vocabulary),
    }
    if model["ignore_merges"]:
        tables["tokenizer.words"] = _words(vocabulary)
    return tables


def _is_covered(document: Mapping[str, Any]) -> bool:
    model = document["model"]
    vocabulary = model.get("vocab")
    return (
        model.get("type") == "BPE"
        and bool(model["merges"])
        and "" not in vocabulary
        and not model["dropout"]
        and not model["continuing_subword_prefix"]
        and not model["end_of_word_suffix"]
        and (model["unk_token"] is None or model["unk_token"] in vocabulary)
        and (not model["byte_fallback"] or vocabulary.keys() >= set(_byte_tokens()))
        # A whole word is found by its units, so these must spell it.
        and (
            not model["ignore_merges"]
            or (_is_byte_level(document["pre_tokenizer"]) and vocabulary.keys() >= BYTE_OF.keys())
        )
    )


def _byte_tokens() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _is_byte_level(step: Mapping[str, Any] | None) -> bool:
    """Return whether words end up in the byte-level alphabet."""
    while step is not None and step["type"] == "Sequence":
        step = step["pretokenizers"][-1] if step["pretokenizers"] else None
    return step is not None and step["type"] == "ByteLevel"


def _skeleton(document: Mapping[str, Any]) -> tuple[bytes, list[int]]:
    """Return the skeleton, and the true id of each of its ids."""
    model, added = document["model"], document["added_tokens"]
    vocabulary: dict[str, int] = model["vocab"]
    names = {text for text in vocabulary if len(text) == 1}
    if model["byte_fallback"]:
        names.update(_byte_tokens())
    if model["unk_token"] is not None:
        names.add(model["unk_token"])
    units = {text: number for number, text in enumerate(sorted(names, key=vocabulary.__getitem__))}
    skeleton = json.dumps(
        {
            **document,
            "added_tokens": [{**token, "id": len(units) + at} for at, token in enumerate(added)],
            "post_processor": None,
            "model": {**model, "vocab": units, "merges": [], "ignore_merges": False},
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    true_ids = {number: vocabulary[text] for text, number in units.items()}
    read = parse(skeleton)  # which numbers the added tokens by itself
    for token in added:
        number = read.token_to_id(token["content"])
        if number is not None:
            true_ids[number] = token["id"]
    return skeleton, [true_ids[number] for number in range(len(true_ids))]


def _texts(document: Mapping[str, Any]) -> list[bytes]:
    """Return what the vocabulary writes for each id; nothing for one without a token."""
    texts: dict[int, str] = {i: text for text, i in document["model"]["vocab"].items()}
    texts |= {token["id"]: token["content"] for token in document["added_tokens"]}
    return [texts.get(token_id, "").encode() for token_id in range(1 + max(texts))]


def _merges(merges: Sequence[Sequence[str]], vocabulary: Mapping[str, int]) -> Array:
    """Return a hash table of (left, right, rank, result)."""
    ranks = {
        (left, right): rank for rank, (left, right) in enumerate(merges)
    }  # the last one counts
    rows = np.array(
        [
            (vocabulary[left], vocabulary[right], rank, vocabulary[left + right])
            for (left, right), rank in ranks.items()
        ],
        np.int32,
    )
    keys = rows.astype(np.uint64)
    return _hashed(_mixed(_mixed(keys[:, 0] << np.uint64(32) | keys[:, 1])), rows)


def _words(vocabulary: Mapping[str, int]) -> Array:
    """Return a hash table of the ids of words that are taken as they are."""
    words = [text.encode() for text in vocabulary if BYTE_OF.keys() >= set(text)]
    ids = [i for text, i in vocabulary.items() if BYTE_OF.keys() >= set(text)]
    return _hashed(_mixed(_hash_texts(words)), np.array(ids, np.int32)[:, None])[:, 0]


def _hash_texts(texts: Sequence[bytes]) -> _Hashes:
    """Return FNV-1a of each."""
    lengths = np.array([len(text) for text in texts])
    order = np.argsort(-lengths, kind="stable")
    data = np.frombuffer(b"".join(texts), np.uint8).astype(np.uint64)
    begins = (np.cumsum(lengths) - lengths)[order]
    hashes = np.full(len(texts), _FIRST_HASH, np.uint64)
    for at in range(int(lengths.max())):
        live = int(np.searchsorted(-lengths[order], -at))
        hashes[:live] = (hashes[:live] ^ data[begins[:live] + at]) * np.uint64(_PRIME)
    result = np.empty_like(hashes)
    result[order] = hashes
    return result


def _mixed(hashes: _Hashes) -> _Hashes:
    hashes = (hashes ^ hashes >> np.uint64(32)) * np.uint64(_MIX)
    return hashes ^ hashes >> np.uint64(29)


def _hashed(hashes: _Hashes, rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return ``rows`` where a search finds them: each in the first free slot from its home on,
    those of lower homes first, so that none is far away. Empty slots are -1."""
    slots = int(len(rows) / _LOAD) + 1
    while True:
        homes = ((hashes >> np.uint64(32)) * np.uint64(slots) >> np.uint64(32)).astype(np.int64)
        order = np.argsort(homes, kind="stable")
        homes, count = homes[order], np.arange(len(rows))
        places = np.maximum.accumulate(homes - count) + count
        if int((places - homes).max()) < BPE_PROBES:
            table = np.full((slots + BPE_PROBES, rows.shape[1]), -1, np.int32)
            table[places] = rows[order]
            return table
        slots += slots // 8 + 1
