"""Tokenizer: encode, decode, bytes, specials."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_llm.errors import TokenizerError
from edge_llm.program.documents import TokenizerFacts
from edge_llm.tokenizers.bytelevel import BYTE_OF, token_to_bytes
from edge_llm.tokenizers.readers.convert import from_gguf
from edge_llm.tokenizers.tokenizer import Tokenizer


def test_the_alphabet_covers_every_byte_once() -> None:
    assert sorted(BYTE_OF.values()) == list(range(256))
    assert (BYTE_OF["Ġ"], BYTE_OF["Ċ"], BYTE_OF["a"], BYTE_OF["é"]) == (32, 10, 97, 0xE9)


@given(st.binary())
def test_alphabet_round_trip(data: bytes) -> None:
    character_of = {byte: character for character, byte in BYTE_OF.items()}
    assert token_to_bytes("".join(character_of[byte] for byte in data)) == data


def test_text_outside_the_alphabet_stands_for_itself() -> None:
    assert token_to_bytes("日 é") == "日 é".encode()


@pytest.mark.parametrize("text", ["", "hello", "a\u0301 é ½ 日本 🦙\u200d\n\t", "<|im_end|>"])
def test_round_trip(byte_tokenizer: Tokenizer, text: str) -> None:
    assert byte_tokenizer.decode(byte_tokenizer.encode(text)) == text


def test_special_text_is_plain_unless_asked(byte_tokenizer: Tokenizer) -> None:
    plain = byte_tokenizer.encode("a<|im_end|>")
    assert not any(map(byte_tokenizer.is_special, plain))
    assert byte_tokenizer.decode(plain) == "a<|im_end|>"
    assert byte_tokenizer.encode("a<|im_end|>", specials=True)[-1] == 260
    assert byte_tokenizer.encode("a<|im_end|>") == plain  # the switch goes back


def test_specials_in_decoded_text(byte_tokenizer: Tokenizer) -> None:
    ids = byte_tokenizer.encode("<|im_start|>a<think>", specials=True)
    assert byte_tokenizer.decode(ids) == "a<think>"
    assert byte_tokenizer.decode(ids, skip_specials=False) == "<|im_start|>a<think>"


def test_bos(byte_tokenizer: Tokenizer) -> None:
    assert byte_tokenizer.encode("a", add_bos=True)[0] == 259
    assert 259 not in byte_tokenizer.encode("a")


def test_bos_that_is_missing(byte_tokenizer: Tokenizer) -> None:
    byte_tokenizer.facts = replace(byte_tokenizer.facts, bos_id=None)
    with pytest.raises(TokenizerError, match="has no BOS token"):
        byte_tokenizer.encode("a", add_bos=True)


def test_ids_without_a_token_give_nothing(byte_tokenizer: Tokenizer) -> None:
    assert byte_tokenizer.token_bytes(5000) == b""
    assert byte_tokenizer.token_bytes(-1) == b""
    assert byte_tokenizer.token_text(None) is None
    assert byte_tokenizer.decode([5000]) == ""


def test_lone_surrogates_are_an_error(byte_tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="lone surrogate at character 1"):
        byte_tokenizer.encode("a\ud800")


def test_places_of_control_tokens(byte_tokenizer: Tokenizer) -> None:
    ids, marks = byte_tokenizer.encode_marked("hell<|im_end|>o<|im_end|><|im_start|>")
    assert ids == [258, 260, ord("o"), 260, 259]
    assert marks == [(1, 4, 14), (3, 15, 25), (4, 25, 37)]


def test_threads_do_not_see_each_others_switch(byte_tokenizer: Tokenizer) -> None:
    def encode(specials: bool) -> int:
        return len(byte_tokenizer.encode("<|im_end|>" * 50, specials=specials))

    wanted = [bool(i % 2) for i in range(400)]
    with ThreadPoolExecutor(4) as pool:
        lengths = list(pool.map(encode, wanted))
    assert lengths == [50 if specials else 500 for specials in wanted]


def test_not_a_tokenizer_file() -> None:
    facts = TokenizerFacts(size=1, bos_id=None, eos_id=None, add_bos=False)
    with pytest.raises(TokenizerError, match=r"not a readable tokenizer\.json"):
        Tokenizer(b"\xff\x00", facts)


def test_a_panic_of_the_library_is_an_error(byte_metadata: dict[str, Any]) -> None:
    document = json.loads(from_gguf(byte_metadata).json)
    document["model"]["continuing_subword_prefix"] = "###"  # longer than what it is cut from
    facts = TokenizerFacts(size=262, bos_id=None, eos_id=None, add_bos=False)
    with pytest.raises(TokenizerError, match=r"not a readable tokenizer\.json"):
        Tokenizer(json.dumps(document).encode(), facts)


def test_a_pattern_that_gives_up(byte_metadata: dict[str, Any]) -> None:
    document = json.loads(from_gguf(byte_metadata).json)
    split = document["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = "(a|aa)+$"
    facts = TokenizerFacts(size=262, bos_id=None, eos_id=None, add_bos=False)
    tokenizer = Tokenizer(json.dumps(document).encode(), facts)
    with pytest.raises(TokenizerError, match=r"cannot encode the text: .*retry-limit"):
        tokenizer.encode("a" * 40 + "b")


@pytest.mark.parametrize(
    ("decoder", "complaint"),
    [
        ({"type": "WordPiece", "prefix": "##", "cleanup": True}, "a WordPiece decoder"),
        ({"type": "Sequence", "decoders": []}, "a None decoder"),
        (None, "a None decoder"),
        (
            {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
            r"a ByteFallback\+Fuse decoder",
        ),
    ],
)
def test_other_decoders_are_refused_by_name(
    byte_metadata: dict[str, Any], decoder: Any, complaint: str
) -> None:
    document = json.loads(from_gguf(byte_metadata).json)
    document["decoder"] = decoder
    facts = TokenizerFacts(size=262, bos_id=None, eos_id=None, add_bos=False)
    with pytest.raises(TokenizerError, match=complaint):
        Tokenizer(json.dumps(document).encode(), facts)
