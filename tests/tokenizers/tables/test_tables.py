"""Tokenizers by their tables: the same ids, spans and bytes as the library gives with the whole
``tokenizer.json``."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st
from mixed_text import mixed_texts
from tokenizers import decoders, models, normalizers, pre_tokenizers

from edge_llm.errors import NativeError, TokenizerError
from edge_llm.llm.checkpoints.gguf.file import read_gguf_file
from edge_llm.program.documents import TokenizerFacts
from edge_llm.tokenizers.bytelevel import BYTE_OF
from edge_llm.tokenizers.readers.convert import TokenizerDocument, from_directory, from_gguf
from edge_llm.tokenizers.stream import TextDecoder
from edge_llm.tokenizers.tables.build import tables_of
from edge_llm.tokenizers.tables.merger import Merger
from edge_llm.tokenizers.tokenizer import Tokenizer

SHORT, LONG = 1000, 100_000


class Pair(NamedTuple):
    """One tokenizer, loaded in both ways."""

    slow: Tokenizer
    fast: Tokenizer


def load(tables: Mapping[str, Any], facts: TokenizerFacts) -> Tokenizer:
    merger = Merger(tables, facts.size)
    return Tokenizer(merger.skeleton, facts, merger)


def pair_of(data: bytes, facts: TokenizerFacts) -> Pair:
    tables = tables_of(data)
    assert tables
    return Pair(Tokenizer(data, facts), load(tables, facts))


def document_of(form: str, request: pytest.FixtureRequest, scratch: Path) -> TokenizerDocument:
    """``form``: a folder's fixture, or the ending of a file's name in such a folder."""
    fixture, _, name = form.partition("/")
    path: Path = request.getfixturevalue(fixture)
    if not name:
        if path.suffix == ".gguf":
            return from_gguf(read_gguf_file(path).metadata)
        if path.is_dir():
            return from_directory(path)
        (scratch / path.name).write_bytes(path.read_bytes())
        return from_directory(scratch)
    [file] = path.glob(f"*{name}")
    if name.endswith(".gguf"):
        return from_gguf(read_gguf_file(file).metadata)
    (scratch / "tokenizer.model").write_bytes(file.read_bytes())
    return from_directory(scratch)


DEFAULT = (
    "llama3_tokenizer_dir",
    "qwen3_tokenizer_dir",
    "o200k_tokenizer_dir",
    "smollm2_gguf",
    "mistral_tokenizer_dir/.model.v3",
    "ggml_vocab_dir/-llama-spm.gguf",
    "ggml_vocab_dir/-phi-3.gguf",
)
_VOCABULARIES = "command-r deepseek-coder deepseek-llm falcon gpt-2 qwen35 starcoder"
OTHERS = (
    "qwen2_5_tokenizer_dir",
    "gemma3_tokenizer_dir",
    "llama3_tiktoken",
    "qwen_tiktoken",
    "mistral_tokenizer_dir/.model.v1",
    "mistral_tokenizer_dir/.model.v7",
    *map("ggml_vocab_dir/-{}.gguf".format, _VOCABULARIES.split()),
)


@pytest.fixture(
    scope="module", params=[*DEFAULT, *(pytest.param(o, marks=pytest.mark.slow) for o in OTHERS)]
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    document = document_of(request.param, request, tmp_path_factory.mktemp("alone"))
    return pair_of(document.json, document.facts)


def compare(pair: Pair, text: str) -> None:
    slow, fast = pair
    for specials, continues in ((False, False), (True, False), (False, True)):
        ids = slow.encode(text, specials=specials, continues=continues)
        assert fast.encode(text, specials=specials, continues=continues) == ids, repr(text)
    assert fast.decode(ids) == slow.decode(ids)
    assert fast.encode_marked(text) == slow.encode_marked(text), repr(text)


def test_generated_texts(pair: Pair) -> None:
    for text in mixed_texts(SHORT, seed=2):
        compare(pair, text)


def test_a_text_in_pieces(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["".join(mixed_texts(SHORT, seed=4)), " and so on,\n".join(mixed_texts(SHORT, seed=5))]
    texts.append("<|im_start|>user x<|im_end|> one two <|eot_id|>three <s> four</s> five" * 20)
    for tokenizer in pair:
        for text in texts:
            whole = tokenizer.encode(text), tokenizer.encode_marked(text)
            with monkeypatch.context() as patch:
                patch.setattr("edge_llm.tokenizers.tokenizer.PIECE", 3)
                # What begins every text with a space would begin every piece with one, and
                # Gemma has tokens that end in a space.
                marks = '"Prepend"', '"MergedWithPrevious"'
                whole_alone = any(mark in tokenizer._hf.to_str() for mark in marks)
                assert whole_alone or len(list(tokenizer._pieces(text))) > 10
                assert (tokenizer.encode(text), tokenizer.encode_marked(text)) == whole


@pytest.mark.slow
def test_many_generated_texts(pair: Pair) -> None:
    for text in mixed_texts(LONG, seed=3):
        compare(pair, text)


def test_every_token(pair: Pair) -> None:
    slow, fast = pair
    assert dict(fast.special_texts) == dict(slow.special_texts)
    for token_id in (-1, *range(slow.size + 3)):
        assert fast.token_text(token_id) == slow.token_text(token_id)
        assert fast.token_bytes(token_id) == slow.token_bytes(token_id)
        assert fast.first_bytes(token_id) == slow.first_bytes(token_id)
        assert fast.is_special(token_id) == slow.is_special(token_id)


def test_streamed_text(pair: Pair) -> None:
    source = random.Random(4)
    for _ in range(200):
        ids = source.choices(range(pair.slow.size), k=8)
        slow, fast = TextDecoder(pair.slow), TextDecoder(pair.fast)
        assert [*map(fast.push, ids), fast.finish()] == [*map(slow.push, ids), slow.finish()]


@pytest.mark.parametrize("alphabet", ["a", "ab", "etaoin", "= ", "é日a ", "\U0001f999"])
def test_a_very_long_word(pair: Pair, alphabet: str) -> None:
    """Neither takes time that grows with the square of the length."""
    text = "".join(random.Random(5).choices(alphabet, k=100_000 // len(alphabet.encode())))
    assert pair.fast.encode(text) == pair.slow.encode(text)


def test_long_texts_with_spaces(pair: Pair) -> None:
    texts = list(mixed_texts(400, seed=6))
    for separator in ("", " ", "  ", "\n"):
        compare(pair, separator.join(texts))


# Small vocabularies, where every corner is met.


def facts_of(tokenizer: hf.Tokenizer) -> TokenizerFacts:
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    return TokenizerFacts(size=size, bos_id=None, eos_id=None, add_bos=False)


def small_pair(tokenizer: hf.Tokenizer) -> Pair:
    return pair_of(tokenizer.to_str().encode(), facts_of(tokenizer))


def train(alphabet: str, choices: list[tuple[int, int]]) -> tuple[dict[str, int], list[Any]]:
    """A vocabulary of the alphabet and of pairs of tokens, some of them named twice."""
    tokens, merges = list(alphabet), []
    for left, right in choices:
        pair = tokens[left % len(tokens)], tokens[right % len(tokens)]
        merges.append(pair)
        if "".join(pair) not in tokens:
            tokens.append("".join(pair))
    return {token: 2 * i for i, token in enumerate(tokens)}, merges  # ids with gaps


choices = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12)


@given(choices, st.text("abc |<>é日", max_size=40), st.booleans())
def test_byte_level(picked: list[tuple[int, int]], text: str, whole: bool) -> None:
    vocabulary, merges = train("abcĠ" if not whole else "abcĠ" + "".join(BYTE_OF), picked)
    tokenizer = hf.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([hf.AddedToken("|b", special=True), "<c>", "a"])
    compare(small_pair(tokenizer), text)


@given(choices, st.text("abcdé日▁ <", max_size=40), st.sampled_from([None, True, False]))
def test_sentencepiece(picked: list[tuple[int, int]], text: str, fuse: bool | None) -> None:
    """``fuse`` None: characters that the vocabulary lacks become bytes, else the unknown token."""
    vocabulary, merges = train("abc▁", picked)
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "<s>"]
    vocabulary |= {name: 2 * i + 1 for i, name in enumerate(names)}
    tokenizer = hf.Tokenizer(
        models.BPE(
            vocabulary,
            merges,
            unk_token="<unk>",
            fuse_unk=bool(fuse),
            byte_fallback=fuse is None,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_tokens([hf.AddedToken("<s>", special=True, normalized=False), "<b"])
    compare(small_pair(tokenizer), text)
    compare(small_pair(tokenizer), text * 30)


def test_the_leftmost_of_equal_merges_goes_first(byte_metadata: dict[str, Any]) -> None:
    byte_metadata["tokenizer.ggml.tokens"][256:259] = ["aa", "aaa", "aaaa"]
    byte_metadata["tokenizer.ggml.merges"] = ["a a", "aa a", "aa aa"]
    document = from_gguf(byte_metadata)
    pair = pair_of(document.json, document.facts)
    for count in range(1, 40):
        compare(pair, "a" * count)
    assert pair.fast.encode("a" * 7) == [258, 257]


def damaged(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["model"][key] = value

    return change


def without_a_byte(document: dict[str, Any]) -> None:
    vocabulary = document["model"]["vocab"]
    vocabulary["no byte"] = vocabulary.pop("!")
    document["model"]["ignore_merges"] = True


def with_other_words(document: dict[str, Any]) -> None:
    document["pre_tokenizer"] = {"type": "Whitespace"}
    document["model"]["ignore_merges"] = True


@pytest.mark.parametrize(
    "change",
    [
        damaged("dropout", 0.5),
        damaged("continuing_subword_prefix", "h"),
        damaged("end_of_word_suffix", "e"),
        damaged("merges", []),
        damaged("unk_token", "nowhere"),
        damaged("byte_fallback", True),
        damaged("type", "WordLevel"),
        without_a_byte,
        with_other_words,
    ],
)
def test_others_are_left_to_the_library(
    byte_metadata: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    document = json.loads(from_gguf(byte_metadata).json)
    assert tables_of(json.dumps(document).encode())
    change(document)
    assert tables_of(json.dumps(document).encode()) == {}


Change = Callable[[dict[str, Any]], None]


def put(name: str, at: Any, value: int) -> Change:
    def change(tables: dict[str, Any]) -> None:
        tables[f"tokenizer.{name}"] = tables[f"tokenizer.{name}"].copy()
        tables[f"tokenizer.{name}"][at] = value

    return change


def cut_short(name: str) -> Change:
    def change(tables: dict[str, Any]) -> None:
        tables[f"tokenizer.{name}"] = tables[f"tokenizer.{name}"][:-1]

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put("units", 3, 262), "units holds ids from 0 to 262, expected 0 to 261"),
        (put("units", 3, -1), "units holds ids from -1"),
        (cut_short("units"), "units has no id"),
        (put("merges", (0, 0), 262), "merges holds"),
        (put("merges", (0, 3), -2), "merges holds"),
        (put("merges", (slice(None), 3), -1), "merges that give no token"),
        (put("offsets", 0, 1), "offsets do not divide"),
        (put("offsets", 1, 1000), "offsets do not divide"),
        (put("offsets", 1, 1), "offsets cut a character"),
        (cut_short("offsets"), "offsets do not divide"),
        (cut_short("texts"), "offsets do not divide"),
        (put("texts", 0, 0xFF), "texts is not UTF-8"),
        (put("skeleton", 0, 0), r"not a readable tokenizer\.json"),
    ],
)
def test_hostile_tables_are_refused(
    byte_metadata: dict[str, Any], change: Change, complaint: str
) -> None:
    document = from_gguf(byte_metadata)
    tables: dict[str, Any] = dict(tables_of(document.json))
    change(tables)
    with pytest.raises(TokenizerError, match=complaint):
        load(tables, document.facts)


@given(st.data())
def test_any_tables_with_ids_are_safe(data: st.DataObject) -> None:
    """They can only give wrong ids: no search and no merging goes on for ever."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    source = np.random.default_rng(seed)
    size, rows = 8, source.integers(65, 200)
    tables = {
        "tokenizer.skeleton": np.zeros(1, np.uint8),
        "tokenizer.units": source.integers(0, size, 8, np.int32),
        "tokenizer.offsets": np.array([*sorted(source.integers(0, 9, size)), 9], np.int32),
        "tokenizer.texts": np.frombuffer(b"aaaabbbcc", np.uint8),
        "tokenizer.merges": source.integers(-1, size, (rows, 4), np.int32),
        "tokenizer.words": source.integers(-1, size, rows, np.int32),
    }
    tables["tokenizer.offsets"][0] = 0
    tables["tokenizer.merges"][:, 3] = np.where(tables["tokenizer.merges"][:, 0] < 0, -1, 5)
    merger = Merger(tables, size)
    units = source.integers(0, 8, 300).tolist()
    ids, ends = merger.merge(units, sorted(source.integers(0, 9, 300).tolist()))
    assert all(0 <= i < size for i in ids)
    assert ends == sorted(set(ends))
    assert ends[-1] == len(units)
    with pytest.raises(NativeError, match="unit 8 of a text, the tables have 8"):
        merger.merge([1, 8], [0, 0])
