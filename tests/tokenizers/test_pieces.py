"""Long texts are encoded in pieces: given up early, broken off, never cut at the wrong place."""

from __future__ import annotations

import pytest

from edge_llm.errors import ContextLengthError
from edge_llm.tokenizers.pieces import PIECE, Cutter, interruptible
from edge_llm.tokenizers.tokenizer import Tokenizer

LONG = "hello there, world. " * (3 * PIECE // 20)


def test_too_many_tokens_are_noticed_after_a_part(byte_tokenizer: Tokenizer) -> None:
    with pytest.raises(ContextLengthError) as info:
        byte_tokenizer.encode(LONG, token_limit=len(LONG) // 2)
    assert info.value.at_least
    assert info.value.prompt_tokens < len(byte_tokenizer.encode(LONG))


def test_it_can_be_broken_off_between_two_pieces(byte_tokenizer: Tokenizer) -> None:
    asked: list[int] = []

    def check() -> None:
        asked.append(len(asked))
        if len(asked) == 2:
            raise KeyboardInterrupt

    with interruptible(check), pytest.raises(KeyboardInterrupt):
        byte_tokenizer.encode(LONG)
    assert len(asked) == 2
    assert byte_tokenizer.encode("hello")  # and nothing is checked any more


def cutter(
    *,
    added: str = "<s>",
    rstrip: bool = False,
    words: int | None = 2,
    tokens: tuple[bytes, ...] = (),
    encode: object = None,
) -> Cutter:
    def ids(text: str, continues: bool) -> list[int]:
        return [ord(c) for c in text]

    return Cutter(
        [{"content": added, "rstrip": rstrip}],
        encode or ids,  # type: ignore[arg-type]
        None if words is None else lambda text: words,
        lambda: tokens,
    )


TEXT = "one two, three\nfour five"


def test_where_texts_are_cut() -> None:
    assert list(cutter().pieces(TEXT, 1)) == ["one", " two", ", three", "\nfour", " five"]
    assert list(cutter().pieces(TEXT, 8)) == ["one two, three", "\nfour five"]
    assert list(cutter().pieces("x" * 99, 8)) == ["x" * 99]
    whole = cutter(words=None, tokens=(b" one", b"  "))
    assert list(whole.pieces(TEXT, 1)) == ["one", " two, three\nfour", " five"]


@pytest.mark.parametrize(
    "strict",
    [
        cutter(added="turn over"),  # found in the text before it is cut into words
        cutter(added="<a", rstrip=True),  # takes the space in
        cutter(words=None, tokens=(b"of the",)),
        cutter(encode=lambda text, continues: [len(text)]),
        cutter(encode=lambda text, continues: [ord(c) for c in text.strip()]),
    ],
)
def test_tokenizers_that_allow_no_cut(strict: Cutter) -> None:
    assert list(strict.pieces(TEXT, 1)) == [TEXT]
