"""Stages of a ``tokenizer.json`` that would make text longer than memory is: refused before the
library runs them."""

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


def load(
    normalizer: dict[str, Any] | None, replace: tuple[str, str] = ("", ""), **stages: Any
) -> Tokenizer:
    """Load a tokenizer of three letters, with ``normalizer`` and other stages in its file."""
    made = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "▁": 2}, merges=[]))
    made.decoder = decoders.ByteLevel()
    document = json.loads(made.to_str()) | {"normalizer": normalizer} | stages
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


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def copying(times: int) -> dict[str, Any]:
    """Return a post-processor that writes a text several times."""
    return {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}] * times,
        "pair": [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"],
        "special_tokens": {},
    }


@pytest.mark.parametrize(
    "stages",
    [
        {"normalizer": sequence(*[{"type": "ByteLevel"}] * 24)},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 24}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Sequence", "pretokenizers": [BYTES] * 3}] * 8,
            }
        },
        {
            "normalizer": sequence(*[{"type": "ByteLevel"}] * 5),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 5},
        },
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Metaspace", "replacement": letter, "prepend_scheme": "always"}
                    for letter in "▁ab▁abc"
                ],
            }
        },
        {"post_processor": {"type": "Sequence", "processors": [copying(2)] * 24}},
        {"post_processor": copying(5000)},
    ],
)
def test_growth_in_any_stage_is_refused(stages: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError, match=r"could make text .* times as long"):
        load(stages.pop("normalizer", None), **stages)


@pytest.mark.parametrize("normalized", [True, False])
def test_added_tokens_are_bounded_together(normalized: bool) -> None:
    count = 300 if normalized else 30_000
    added = [
        {
            "id": 3 + at,
            "content": f"{at}".ljust(300, "ä"),
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": normalized,
            "special": False,
        }
        for at in range(count)
    ]
    with pytest.raises(TokenizerError, match="added tokens could take"):
        load(sequence(*[{"type": "ByteLevel"}] * 7), added_tokens=added)


def test_an_added_token_is_bounded() -> None:
    fields = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    with pytest.raises(TokenizerError, match="an added token has 2000 bytes"):
        load(None, added_tokens=[{"id": 3, "content": "ä" * 1000, **fields}])


def test_affixes_of_the_model_are_bounded() -> None:
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        with pytest.raises(TokenizerError, match="prefix or suffix has 1000 bytes"):
            load(None, (f'"{name}": null', f'"{name}": "{"x" * 1000}"'))


@pytest.mark.parametrize("stages", [{"pre_tokenizer": 5}, {"post_processor": {"type": "Other"}}])
def test_stages_that_cannot_be_made_out(stages: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError):
        load(None, **stages)
