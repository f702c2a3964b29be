"""Normalizers that would make text longer than memory is: refused before the library runs them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models

from edge_llm.errors import TokenizerError
from edge_llm.program.documents import TokenizerFacts
from edge_llm.tokenizers.tokenizer import Tokenizer

FACTS = TokenizerFacts(size=3, bos_id=None, eos_id=None, add_bos=False)


def load(normalizer: dict[str, Any] | None, replace: tuple[str, str] = ("", "")) -> Tokenizer:
    """A tokenizer of three letters, with ``normalizer`` in its file."""
    made = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "▁": 2}, merges=[]))
    made.decoder = decoders.ByteLevel()
    document = json.loads(made.to_str()) | {"normalizer": normalizer}
    return Tokenizer(json.dumps(document).replace(*replace).encode(), FACTS)


def put(found: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": found, "content": content}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


@pytest.mark.parametrize(
    "normalizer",
    [
        None,
        put({"String": "b"}, "a" * 200),
        put({"String": "bbbb"}, "a" * 1000),
        put({"Regex": "b+"}, "a" * 200),
        sequence({"type": "Prepend", "prepend": "▁"}, put({"String": " "}, "▁")),
        sequence({"type": "NFKC"}, sequence(put({"String": " "}, "▁"))),
    ],
)
def test_what_real_tokenizers_do_is_allowed(normalizer: dict[str, Any] | None) -> None:
    assert load(normalizer).encode("a")[-1] == 0


@pytest.mark.parametrize(
    "normalizer",
    [
        put({"String": "a"}, "a" * 300),
        put({"Regex": ""}, "a" * 300),
        sequence(*[put({"String": "a"}, "aa")] * 9),
        sequence(*[sequence({"type": "Prepend", "prepend": "aaa"})] * 5),
        {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    ],
)
def test_growth_is_refused(normalizer: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError, match=r"could make text .* times as long"):
        load(normalizer)


def test_escapes_hide_nothing() -> None:
    with pytest.raises(TokenizerError, match="times as long"):
        load(put({"String": "a"}, "a" * 300), ('"Replace"', '"\\u0052eplace"'))
    with pytest.raises(TokenizerError, match="times as long"):
        load(put({"String": "a"}, "a" * 300), ('"type": "Replace"', '"typ\\u0065": "Replace"'))


@pytest.mark.parametrize("normalizer", [{"type": "Replace"}, {"Sequence": [{"type": "Replace"}]}])
def test_damaged_normalizers(normalizer: Any) -> None:
    with pytest.raises(TokenizerError, match="not a readable"):
        load(normalizer)
