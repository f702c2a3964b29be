"""Generated texts: ids equal to those of the authors' libraries (``tiktoken``, ``sentencepiece``)
for every file format of a vocabulary, and text back from the ids."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sentencepiece
import tiktoken
import tokenizers
from mixed_text import mixed_texts
from sentencepiece_models import model as sentencepiece_model

from edge_llm.llm.checkpoints.gguf.file import read_gguf_file
from edge_llm.tokenizers.bytelevel import BYTE_OF, bytes_to_token, token_to_bytes
from edge_llm.tokenizers.readers.convert import TokenizerDocument, from_directory, from_gguf
from edge_llm.tokenizers.readers.merges import rebuild_merges
from edge_llm.tokenizers.stream import TextDecoder
from edge_llm.tokenizers.tokenizer import Tokenizer

SHORT, LONG = 2000, 100_000

Encode = Callable[[str], list[int]]
Folder = Callable[[str], Path]


class Pair(NamedTuple):
    """A tokenizer and its oracle; ``prepare`` takes out what both are known to read differently,
    ``shown`` is what becomes of a text on the way to ids and back."""

    ours: Tokenizer
    encode: Encode
    shown: Callable[[str], str] = str
    prepare: Callable[[str], str] = str


def composed(text: str) -> str:
    """By the tables of the library, which know fewer of the newest marks than Python's."""
    composed: str = tokenizers.normalizers.NFC().normalize_str(text)
    return composed


def spaced(text: str) -> str:
    """SentencePiece writes a space as this character, and cannot tell the two apart."""
    return text.replace("\u2581", " ")


# The patterns as their authors publish them.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Folder:
    """The folder or file of an asset, by the name of its fixture."""

    def get(name: str) -> Path:
        path: Path = request.getfixturevalue(name)
        return path

    return get


def build(document: TokenizerDocument) -> Tokenizer:
    return Tokenizer(document.json, document.facts)


def by_tiktoken(pattern: str, ranks: Mapping[bytes, int]) -> Encode:
    return tiktoken.Encoding(
        "test", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={}
    ).encode_ordinary


def by_sentencepiece(data: bytes) -> Encode:
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    return lambda text: list(processor.encode(text))


def ranks_of(file: Path) -> dict[bytes, int]:
    lines = [line.split() for line in file.read_bytes().splitlines()]
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def gguf(file: Path) -> Mapping[str, Any]:
    return read_gguf_file(file).metadata


def alone(file: Path, scratch: Path, name: str = "tokenizer.model") -> Tokenizer:
    """The tokenizer of a folder with that file and no other."""
    (scratch / name).write_bytes(file.read_bytes())
    return build(from_directory(scratch))


def llama3(form: str, folder: Folder, scratch: Path) -> Pair:
    file = folder("llama3_tiktoken")
    oracle = by_tiktoken(LLAMA3, ranks_of(file))
    if form == "tiktoken":
        return Pair(alone(file, scratch), oracle)
    if form == "hf":
        return Pair(build(from_directory(folder("llama3_tokenizer_dir"))), oracle)
    metadata = gguf(folder("ggml_vocab_dir") / "ggml-vocab-llama-bpe.gguf")
    return Pair(build(from_gguf(metadata)), oracle)


def qwen(form: str, folder: Folder, scratch: Path) -> Pair:
    file = folder("qwen_tiktoken")
    encode = by_tiktoken(QWEN, ranks_of(file))
    if form == "tiktoken":
        ours = alone(file, scratch, "qwen.tiktoken")
    elif form == "gguf":
        ours = build(from_gguf(gguf(folder("ggml_vocab_dir") / "ggml-vocab-qwen2.gguf")))
    else:
        ours = build(from_directory(folder(f"{form}_tokenizer_dir")))
    return Pair(ours, lambda text: encode(composed(text)), shown=composed)


def gpt2(form: str, folder: Folder, scratch: Path) -> Pair:
    metadata = gguf(folder("ggml_vocab_dir") / "ggml-vocab-gpt-2.gguf")
    tokens = metadata["tokenizer.ggml.tokens"][:50256]  # in the order of their merges
    ranks = {token_to_bytes(token): rank for rank, token in enumerate(tokens)}
    return Pair(build(from_gguf(metadata)), by_tiktoken(GPT2, ranks))


def o200k(form: str, folder: Folder, scratch: Path) -> Pair:
    source = folder("o200k_tokenizer_dir")
    vocabulary = json.loads((source / "tokenizer.json").read_bytes())["model"]["vocab"]
    ranks = {token_to_bytes(token): rank for token, rank in vocabulary.items() if rank < 199_998}
    oracle = by_tiktoken(O200K, ranks)
    if form == "hf":
        return Pair(build(from_directory(source)), oracle)
    return Pair(build(from_gguf(bpe_metadata("gpt-4o", ranks))), oracle)


def tekken(form: str, folder: Folder, scratch: Path) -> Pair:
    """As Mistral's files number it: a thousand specials come first."""
    document = json.loads((folder("mistral_tokenizer_dir") / "tekken_240911.json").read_bytes())
    config = document["config"]
    count = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {base64.b64decode(e["token_bytes"]): e["rank"] for e in document["vocab"][:count]}
    encode = by_tiktoken(config["pattern"], ranks)
    tokenizer = build(from_gguf(bpe_metadata("tekken", ranks, specials=1000)))
    return Pair(tokenizer, lambda text: [i + 1000 for i in encode(text)])


def mistral(form: str, folder: Folder, scratch: Path) -> Pair:
    [file] = folder("mistral_tokenizer_dir").glob(f"*.model.{form}")
    oracle = by_sentencepiece(file.read_bytes())
    if form == "v1":
        return Pair(alone(file, scratch), oracle, spaced)
    # From version 2 on, a text that begins with a space gets no further one.
    return Pair(alone(file, scratch), oracle, spaced, lambda text: text.lstrip(" \u2581"))


def from_ggml(form: str, folder: Folder, scratch: Path) -> Pair:
    """The oracle reads the same vocabulary as a SentencePiece model."""
    metadata = gguf(folder("ggml_vocab_dir") / f"ggml-vocab-{form}.gguf")
    tokenizer = build(from_gguf(metadata))
    names = ("tokens", "scores", "token_type")
    pieces = list(zip(*(metadata[f"tokenizer.ggml.{name}"] for name in names), strict=True))
    # Phi-3's file marks the unknown piece as control, and ``</s>`` as a token of plain text.
    pieces[:3] = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    oracle = by_sentencepiece(sentencepiece_model(pieces[:32000]))
    return Pair(tokenizer, oracle, spaced, lambda text: text.replace("</s>", ""))


def smollm2(form: str, folder: Folder, scratch: Path) -> Pair:
    metadata = gguf(folder("smollm2_gguf"))
    tokens, merges = (metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "merges"))
    theirs = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {token: i for i, token in enumerate(tokens)},
            [tuple(merge.split(" ")) for merge in merges],
        )
    )
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # Some bytes have no token, among them control characters; they vanish.
    missing = bytes(set(range(256)) - {BYTE_OF[t] for t in tokens if t in BYTE_OF})

    def shown(text: str) -> str:
        return text.encode().translate(None, missing).decode(errors="replace")

    return Pair(build(from_gguf(metadata)), lambda text: theirs.encode(text).ids, shown)


def bpe_metadata(
    pre: str, ranks: Mapping[bytes, int], specials: int = 0
) -> dict[str, str | list[str] | list[int]]:
    """A GGUF vocabulary of ranked tokens."""
    tokens = {bytes_to_token(token): rank for token, rank in ranks.items()}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [f"<SPECIAL_{i}>" for i in range(specials)] + list(tokens),
        "tokenizer.ggml.token_type": [3] * specials + [1] * len(tokens),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in rebuild_merges(tokens)],
    }


CASES: dict[str, tuple[Callable[[str, Folder, Path], Pair], Iterable[str]]] = {
    "llama3": (llama3, ("tiktoken", "hf", "gguf")),
    "qwen": (qwen, ("tiktoken", "qwen2_5", "qwen3", "gguf")),
    "gpt2": (gpt2, ("gguf",)),
    "o200k": (o200k, ("hf", "gguf")),
    "tekken": (tekken, ("gguf",)),
    "mistral": (mistral, ("v1", "v3", "v7")),
    "spm": (from_ggml, ("llama-spm", "phi-3")),
    "smollm2": (smollm2, ("gguf",)),
}


# The others hold the same vocabularies, and are compared to transformers and vectors elsewhere.
DEFAULT = {
    "llama3-tiktoken",
    "qwen-tiktoken",
    "gpt2-gguf",
    "mistral-v1",
    "mistral-v3",
    "spm-llama-spm",
    "spm-phi-3",
    "smollm2-gguf",
}


def cases() -> list[Any]:
    names = [f"{name}-{form}" for name, (_, forms) in CASES.items() for form in forms]
    return [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in names]


@pytest.fixture(scope="module", params=cases())
def pair(
    request: pytest.FixtureRequest, folder: Folder, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    name, _, form = request.param.partition("-")
    return CASES[name][0](form, folder, tmp_path_factory.mktemp("alone"))


def compare(pair: Pair, count: int, seed: int) -> None:
    specials = set(pair.ours.special_texts.values())
    for text in map(pair.prepare, mixed_texts(count, seed)):
        ids = pair.ours.encode(text, add_bos=False)
        assert ids == pair.encode(text), repr(text)
        assert specials.isdisjoint(ids), repr(text)
        assert pair.ours.decode(ids) == pair.shown(text), repr(text)


def test_ids_and_text(pair: Pair) -> None:
    compare(pair, SHORT, 0)


def stream_ids(pair: Pair, count: int) -> None:
    """Any ids at all: specials, parts of characters, ids without a token."""
    source = random.Random(count)
    for _ in range(count):
        ids = source.choices(range(pair.ours.size + 9), k=source.randint(1, 12))
        ids[: source.randint(0, 4)] = source.choices(range(300), k=3)  # bytes, in most
        stream = TextDecoder(pair.ours)
        pieces = [*map(stream.push, ids), stream.finish()]
        assert "".join(pieces) == pair.ours.decode(ids), ids


def test_streamed_ids(pair: Pair) -> None:
    stream_ids(pair, SHORT)


@pytest.mark.slow
def test_many_streamed_ids(pair: Pair) -> None:
    stream_ids(pair, LONG)


@pytest.mark.slow
def test_many_ids_and_texts(pair: Pair) -> None:
    compare(pair, LONG, 1)
