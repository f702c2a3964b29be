"""Text that grows token by token: the same for any split, stop strings, specials."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from edge_llm.program.documents import TokenizerFacts
from edge_llm.runner.engine.events import FinishEvent, TokenEvent
from edge_llm.runner.engine.statistics import RequestClock
from edge_llm.runner.generation.answer import Answer
from edge_llm.runner.generation.stops import StopScanner, StopStrings
from edge_llm.tokenizers.bytelevel import BYTE_OF
from edge_llm.tokenizers.readers.convert import TokenizerDocument, from_gguf
from edge_llm.tokenizers.stream import TextDecoder
from edge_llm.tokenizers.tokenizer import Tokenizer

END = 260


class TextStream:
    """An answer's text by hand, as the generation loop makes it."""

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, after: Iterable[int] = ()
    ) -> None:
        decoder = TextDecoder(tokenizer, after=after)
        self.answer = Answer(0, decoder, None, StopScanner(StopStrings(stop)))

    @property
    def stopped(self) -> bool:
        return self.answer.stopped

    def push(self, token: int) -> str:
        piece = self.answer.take(TokenEvent(token, None))
        return piece.text if piece else ""

    def finish(self) -> str:
        piece = self.answer.take(
            FinishEvent("length", RequestClock(0.0).statistics(1, 0, "hit", 1))
        )
        assert piece is not None
        return piece.text


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Every byte is a token; 256 to 259 are longer pieces, one ends within a character."""
    character_of = {byte: character for character, byte in BYTE_OF.items()}
    pieces = [b"ab", b"bc", "é".encode(), "a日".encode()[:3], b"<|end|>"]
    tokens = [bytes([byte]) for byte in range(256)] + pieces
    vocabulary = {"".join(character_of[b] for b in t): i for i, t in enumerate(tokens)}
    model: dict[str, Any] = {"type": "BPE", "vocab": vocabulary, "merges": []}
    special = {"id": END, "content": "<|end|>", "special": True, "normalized": False}
    special |= {"single_word": False, "lstrip": False, "rstrip": False}
    document = {"version": "1.0", "added_tokens": [special], "model": model}
    document["decoder"] = {"type": "ByteLevel", "add_prefix_space": False}
    document["decoder"] |= {"trim_offsets": False, "use_regex": False}
    facts = TokenizerFacts(size=261, bos_id=None, eos_id=END, add_bos=False)
    return Tokenizer(json.dumps(document).encode(), facts)


def pieces_of(tokenizer: Tokenizer, ids: list[int], stop: list[str]) -> tuple[list[str], bool]:
    stream = TextStream(tokenizer, stop)
    pieces = [stream.push(token) for token in ids]
    return [*pieces, stream.finish()], stream.stopped


def cut(text: str, stop: list[str]) -> str:
    """The text before the stop string that is complete first, by looking at every prefix."""
    for end in range(len(text) + 1):
        complete = [s for s in stop if text[:end].endswith(s)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(st.lists(st.integers(0, 260)))
def test_equals_the_whole_decode(tokenizer: Tokenizer, ids: list[int]) -> None:
    pieces, stopped = pieces_of(tokenizer, ids, [])
    assert "".join(pieces) == tokenizer.decode(ids)
    assert not stopped


_LETTERS = [ord("a"), ord("b"), ord("c"), 256, 257, 258, 259, END, 0xE6, 0x97, 0xA5]


@given(
    st.lists(st.sampled_from(_LETTERS)),
    st.lists(st.text("abcé", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_ends_before_the_first_complete_stop_string(
    tokenizer: Tokenizer, ids: list[int], stop: list[str]
) -> None:
    pieces, stopped = pieces_of(tokenizer, ids, stop)
    whole = tokenizer.decode(ids)
    assert "".join(pieces) == cut(whole, stop)
    assert stopped is (cut(whole, stop) != whole)


@given(st.text("abcé日🦙 ", max_size=12), st.data())
def test_byte_by_byte(tokenizer: Tokenizer, text: str, data: st.DataObject) -> None:
    ids = list(text.encode())  # one token each
    stop = data.draw(st.lists(st.text("abé", min_size=1, max_size=3), max_size=2))
    assert "".join(pieces_of(tokenizer, ids, stop)[0]) == cut(text, stop)


def test_half_a_character_is_held_back(byte_tokenizer: Tokenizer) -> None:
    stream = TextStream(byte_tokenizer)
    ids = byte_tokenizer.encode("🦙")
    assert [stream.push(i) for i in ids] == ["", "", "", "🦙"]
    stream.push(ids[0])
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


def test_possible_stop_is_held_back_and_given_when_it_is_none(byte_tokenizer: Tokenizer) -> None:
    stream = TextStream(byte_tokenizer, ["xyz"])
    assert [stream.push(byte_tokenizer.encode(c)[0]) for c in "axyxyw"] == [
        "a", "", "", "xy", "", "xyw",
    ]  # fmt: skip
    stream.push(byte_tokenizer.encode("x")[0])
    assert stream.finish() == "x"
    assert not stream.stopped


def test_nothing_comes_after_a_stop(byte_tokenizer: Tokenizer) -> None:
    stream = TextStream(byte_tokenizer, ["ell"])
    assert stream.push(258) == "h"  # "hell"
    assert stream.stopped
    assert stream.push(258) == ""
    assert stream.finish() == ""


def test_specials_give_no_text(byte_tokenizer: Tokenizer) -> None:
    stream = TextStream(byte_tokenizer)
    assert stream.push(260) == ""
    assert stream.push(261) == "<think>"


def test_stop_completed_by_the_end_of_input(byte_tokenizer: Tokenizer) -> None:
    stream = TextStream(byte_tokenizer, ["\ufffd"])
    assert stream.push(byte_tokenizer.encode("é")[0]) == ""
    assert stream.finish() == ""
    assert stream.stopped


@pytest.fixture(scope="module")
def spelled() -> TokenizerDocument:
    """0..255 are the bytes; then pieces with and without spaces, and a special one."""
    texts = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "▁a", "a▁b", "▁▁", "日", "</s>"]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": [0.0] * len(texts),
        "tokenizer.ggml.token_type": [6] * 256 + [1] * 5 + [3],
    }
    return from_gguf(metadata)


@pytest.fixture(scope="module")
def sentencepiece(spelled: TokenizerDocument) -> Tokenizer:
    """The tokenizer of ``spelled``."""
    return Tokenizer(spelled.json, spelled.facts)


_PIECES = st.integers(0, 262) | st.integers(256, 261) | st.sampled_from([0x20, 0xE6, 0x97, 0xA5])


@given(st.lists(_PIECES))
def test_sentencepiece_equals_the_whole_decode(sentencepiece: Tokenizer, ids: list[int]) -> None:
    pieces, _ = pieces_of(sentencepiece, ids, [])
    assert "".join(pieces) == sentencepiece.decode(ids)


@given(st.lists(st.sampled_from([0x20, 0x61, *range(256, 262)])))
def test_sentencepiece_text_is_the_librarys(
    sentencepiece: Tokenizer, spelled: TokenizerDocument, ids: list[int]
) -> None:
    """Where every byte is a character of its own; the library gives up a whole run of bytes for
    one that is not UTF-8."""
    theirs = tokenizers.Tokenizer.from_buffer(spelled.json)
    assert sentencepiece.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert sentencepiece.decode(ids, skip_specials=False) == (
        theirs.decode(ids, skip_special_tokens=False)
    )


@pytest.mark.parametrize(
    ("after", "text"), [([], "a a b"), ([261], "a a b"), ([260], " a a b"), ([261, 256], " a a b")]
)
def test_first_space_of_a_continued_text(
    sentencepiece: Tokenizer, after: list[int], text: str
) -> None:
    stream = TextStream(sentencepiece, after=after)
    assert "".join([stream.push(261), stream.push(257), stream.push(256), stream.push(258)]) == text


def test_first_token_of_a_metaspace_decoder() -> None:
    """The library drops all its spaces there."""
    vocabulary = {"▁": 0, "▁▁a": 1, "a▁b": 2}
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    theirs.decoder = tokenizers.decoders.Metaspace()
    facts = TokenizerFacts(size=3, bos_id=None, eos_id=None, add_bos=False)
    ours = Tokenizer(theirs.to_str().encode(), facts)
    for ids in ([0, 1], [1, 1], [2, 0, 2], [0, 0], []):
        assert "".join(pieces_of(ours, ids, [])[0]) == ours.decode(ids) == theirs.decode(ids)
