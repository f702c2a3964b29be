"""Hand-made GGUF bytes: sizes that lie, values that do not belong, files that stop early."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from edge_llm.errors import CheckpointError, ConfigError, EdgeLLMError
from edge_llm.llm.checkpoints.gguf.file import read_gguf_file
from edge_llm.llm.checkpoints.open import open_checkpoint

U8, U32, F32, STRING, ARRAY, U64 = 0, 4, 6, 8, 9, 10
HUGE = 2**63


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return u64(len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + u32(kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dims = b"".join(map(u64, shape))
    return text(name) + u32(len(shape)) + dims + u32(kind) + u64(offset)


def document(
    pairs: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    pair_count: int | None = None,
    tensor_count: int | None = None,
    data: bytes = b"",
) -> bytes:
    head = magic + u32(version)
    head += u64(len(tensors) if tensor_count is None else tensor_count)
    head += u64(len(pairs) if pair_count is None else pair_count)
    body = head + b"".join(pairs) + b"".join(tensors)
    return body + bytes(-len(body) % 32) + data


ARCHITECTURE = pair("general.architecture", STRING, text("llama"))
SIZES = {
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 8,
    "llama.feed_forward_length": 8,
    "llama.attention.head_count": 2,
}
PAIRS = (
    ARCHITECTURE,
    *(pair(key, U32, u32(value)) for key, value in SIZES.items()),
    pair("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 1e-5)),
)
MATRIX = (8, 8)
TENSORS = (
    tensor("token_embd.weight", MATRIX),
    tensor("output_norm.weight", (8,)),
    tensor("blk.0.attn_norm.weight", (8,)),
    tensor("blk.0.ffn_norm.weight", (8,)),
    *(tensor(f"blk.0.attn_{part}.weight", MATRIX) for part in ("q", "k", "v", "output")),
    *(tensor(f"blk.0.ffn_{part}.weight", MATRIX) for part in ("gate", "up", "down")),
)
DATA = bytes(256)  # all tensors at offset 0: allowed, if odd
ONES = struct.pack("<f", 1.0) * 256
FACTORS = (tensor("rope_factors_long.weight", (2,)), tensor("rope_factors_short.weight", (2,)))
ORIGINAL = pair("phi3.rope.scaling.original_context_length", U32, u32(32))

CONTAINER: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "three bytes": (b"GGU", "a value of 4 bytes, expected at most the 3 left"),
    "magic": (document(magic=b"GGML"), "does not start with b'GGUF'"),
    "version 1": (document(version=1), "got GGUF version 1, expected 2 or 3"),
    "big-endian": (document(version=3 << 24), "got GGUF version 50331648"),
    "tensor count": (document(tensor_count=HUGE), f"got tensor count {HUGE}, expected at most 0"),
    "metadata count": (document(pair_count=HUGE), f"got metadata count {HUGE}"),
    "key length": (document((u64(HUGE) + b"abc", bytes(64))), f"got string length {HUGE}"),
    "string length": (document((pair("k", STRING, u64(HUGE)),)), f"got string length {HUGE}"),
    "array count": (
        document((pair("k", ARRAY, u32(U8) + u64(HUGE)),)),
        f"got array count {HUGE}",
    ),
    "string array count": (
        document((pair("k", ARRAY, u32(STRING) + u64(HUGE)),)),
        f"got array count {HUGE}",
    ),
    "array count over the limit": (
        document((pair("k", ARRAY, u32(U8) + u64(2**23)),), data=bytes(2**23)),
        "got array count 8388608, expected at most 4194304",
    ),
    "nested arrays": (
        document((pair("k", ARRAY, u32(ARRAY) + u64(1)),)),
        "got value type 9",
    ),
    "value type": (document((pair("k", 99, bytes(8)),)), "got value type 99"),
    "key twice": (document((pair("k", U8, b"1"), pair("k", U8, b"1"))), "metadata key 'k' twice"),
    "not UTF-8": (document((pair("k", STRING, text(b"\xff\xfe")),)), "a string that is not UTF-8"),
    "tensor twice": (document((), (tensor("t", (1,)),) * 2), "tensor 't' twice"),
    "rank 0": (document((), (tensor("t", ()), bytes(32))), "tensor 't' of rank 0, expected 1 to 4"),
    "size 0": (
        document((), (tensor("t", (0,)),)),
        "tensor 't' of shape [0], expected sizes above 0",
    ),
    "rank": (document((), (text("t") + u32(2**31), bytes(64))), "of rank 2147483648"),
    "alignment 0": (
        document((pair("general.alignment", U32, u32(0)),)),
        "general.alignment 0, expected a power of two",
    ),
    "alignment 48": (document((pair("general.alignment", U32, u32(48)),)), "general.alignment 48"),
    "alignment text": (
        document((pair("general.alignment", STRING, text("x")),)),
        "general.alignment 'x'",
    ),
    "alignment huge": (
        document((pair("general.alignment", U64, u64(HUGE)),)),
        f"general.alignment {HUGE}",
    ),
}


def write(folder: Path, raw: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("case", CONTAINER)
def test_container(case: str, tmp_path: Path) -> None:
    raw, message = CONTAINER[case]
    with pytest.raises(CheckpointError) as error:
        read_gguf_file(write(tmp_path, raw))
    assert message in str(error.value)


def replaced(items: tuple[bytes, ...], index: int, *new: bytes) -> tuple[bytes, ...]:
    return (*items[:index], *new, *items[index + 1 :])


def phi3(*pairs: bytes, tables: tuple[bytes, ...] = ()) -> bytes:
    """A Phi-3 with head dimension 4, and more pairs and tables."""
    named = tuple(item.replace(b"llama", b"phi3") for item in PAIRS[1:])
    # The lengths of the renamed keys are one less.
    own = tuple(u64(struct.unpack("<Q", item[:8])[0] - 1) + item[8:] for item in named)
    tensors = (
        *TENSORS[:4],
        tensor("blk.0.attn_qkv.weight", (8, 24)),
        tensor("blk.0.attn_output.weight", MATRIX),
        tensor("blk.0.ffn_up.weight", (8, 16)),
        tensor("blk.0.ffn_down.weight", MATRIX),
    )
    head = pair("general.architecture", STRING, text("phi3"))
    return document((head, *own, *pairs), tensors + tables, data=ONES)


def number(value: float) -> bytes:
    return struct.pack("<f", value)


def renamed(key: str, value: int) -> tuple[bytes, ...]:
    index = 1 + list(SIZES).index(key)
    return replaced(PAIRS, index, pair(key, U32, u32(value)))


MODEL: dict[str, tuple[bytes, type[EdgeLLMError], str]] = {
    "architecture missing": (
        document(PAIRS[1:], TENSORS),
        ConfigError,
        "general.architecture: got None, expected one of exaone4, ",
    ),
    "architecture unknown": (
        document((pair("general.architecture", STRING, text("mamba")),)),
        ConfigError,
        "general.architecture: got 'mamba'",
    ),
    "architecture of another type": (
        document((pair("general.architecture", U32, u32(3)),)),
        ConfigError,
        "general.architecture: got 3",
    ),
    "keys missing": (
        document((ARCHITECTURE, *PAIRS[4:]), TENSORS, data=DATA),
        ConfigError,
        "llama.embedding_length: missing",
    ),
    "heads 0": (
        document(renamed("llama.attention.head_count", 0), TENSORS, data=DATA),
        ConfigError,
        "num_attention_heads: got 0",
    ),
    "layers": (
        document(renamed("llama.block_count", 2**32 - 1), TENSORS, data=DATA),
        ConfigError,
        "num_hidden_layers: got 4294967295, expected an integer from 1 to 1024",
    ),
    "heads as an array": (
        document(
            replaced(
                PAIRS,
                5,
                pair("llama.attention.head_count", ARRAY, u32(U32) + u64(2) + u32(2) + u32(1)),
            ),
            TENSORS,
            data=DATA,
        ),
        ConfigError,
        "num_attention_heads: got [2, 1]",
    ),
    "no tensors": (document(PAIRS), ConfigError, "vocab_size: missing"),
    "tensor missing": (
        document(PAIRS, TENSORS[:-1], data=DATA),
        CheckpointError,
        "missing: model.layers.0.mlp.down_proj.weight, expected [8, 8]",
    ),
    "dimensions that wrap": (
        document(PAIRS, replaced(TENSORS, 4, tensor("blk.0.attn_q.weight", (2**33, 2**33)))),
        CheckpointError,
        # 4 * 2**66 bytes, and not the 0 that 64-bit arithmetic would give
        "is truncated: it needs 29514790517935282",
    ),
    "offset": (
        document(PAIRS, replaced(TENSORS, 4, tensor("blk.0.attn_q.weight", MATRIX, 0, 2**63))),
        CheckpointError,
        "is truncated: it needs",
    ),
    "empty dimension": (
        document(PAIRS, replaced(TENSORS, 4, tensor("blk.0.attn_q.weight", (8, 0))), data=DATA),
        CheckpointError,
        "tensor 'blk.0.attn_q.weight' of shape [0, 8], expected sizes above 0",
    ),
    "type unknown": (
        document(
            PAIRS, replaced(TENSORS, 4, tensor("blk.0.attn_q.weight", MATRIX, 777)), data=DATA
        ),
        CheckpointError,
        "type: 'blk.0.attn_q.weight': got type 777",
    ),
    "rows that no block divides": (
        document(PAIRS, replaced(TENSORS, 4, tensor("blk.0.attn_q.weight", MATRIX, 2)), data=DATA),
        CheckpointError,
        "shape: 'blk.0.attn_q.weight': got rows of 8, expected a multiple of 32 for Q4_0",
    ),
    "super-blocks beyond the file": (
        document(PAIRS, replaced(TENSORS, 4, tensor("blk.0.attn_q.weight", (256, 8), 14))),
        CheckpointError,
        "is truncated: it needs",
    ),
    "parts without their number": (
        document((*PAIRS, pair("split.count", U32, u32(65535))), TENSORS, data=DATA),
        CheckpointError,
        "split.count: got 65535, expected an integer from 0 to 1024",
    ),
    "parts of no number": (
        document((*PAIRS, pair("split.count", STRING, text("2"))), TENSORS, data=DATA),
        CheckpointError,
        "split.count: got '2', expected an integer",
    ),
    "a window of another type": (
        document(
            (*PAIRS, pair("llama.attention.sliding_window", STRING, text("x"))), TENSORS, data=DATA
        ),
        ConfigError,
        "sliding_window: got 'x', expected an integer",
    ),
    "columns to rotate": (
        phi3(pair("phi3.rope.dimension_count", U32, u32(2**32 - 1))),
        ConfigError,
        "partial_rotary_factor: got 1073741823.75, expected at most 1.0",
    ),
    "columns to rotate as text": (
        phi3(pair("phi3.rope.dimension_count", STRING, text("x"))),
        ConfigError,
        "partial_rotary_factor: got 'x', expected a",
    ),
    "no columns to rotate": (
        phi3(pair("phi3.rope.dimension_count", U32, u32(0))),
        ConfigError,
        "partial_rotary_factor: got 0, expected a",
    ),
    "one table of two": (
        phi3(ORIGINAL, tables=FACTORS[:1]),
        ConfigError,
        "short_factor: missing",
    ),
    "tables of another size": (
        phi3(ORIGINAL, tables=(tensor("rope_factors_long.weight", (3,)), FACTORS[1])),
        ConfigError,
        "long_factor: got 3 numbers, expected 2",
    ),
    "a table of great size": (
        phi3(ORIGINAL, tables=(tensor("rope_factors_long.weight", (2**40,)), FACTORS[1])),
        CheckpointError,
        "is truncated: it needs",
    ),
    "a table of two dimensions": (
        phi3(ORIGINAL, tables=(tensor("rope_factors_long.weight", (2, 2)), FACTORS[1])),
        CheckpointError,
        "rope_factors_long.weight: got shape [2, 2], expected a vector",
    ),
    "tables without the length before": (
        phi3(tables=FACTORS),
        ConfigError,
        "original_max_position_embeddings: missing",
    ),
    "an attention factor that is no number": (
        phi3(
            ORIGINAL, pair("phi3.rope.scaling.attn_factor", F32, number(math.nan)), tables=FACTORS
        ),
        ConfigError,
        "rope.scaling.attn_factor: got nan, expected a number above 0",
    ),
    "an attention factor as text": (
        phi3(ORIGINAL, pair("phi3.rope.scaling.attn_factor", STRING, text("x")), tables=FACTORS),
        ConfigError,
        "rope.scaling.attn_factor: got 'x', expected a number above 0",
    ),
    "an infinite ramp": (
        phi3(
            ORIGINAL,
            pair("phi3.rope.scaling.type", STRING, text("yarn")),
            pair("phi3.rope.scaling.factor", F32, number(math.inf)),
        ),
        ConfigError,
        "factor: got inf, expected a",
    ),
    "rope table beyond the file": (
        document(PAIRS, (*TENSORS, tensor("rope_freqs.weight", (2,), 0, 2**40)), data=DATA),
        CheckpointError,
        "is truncated: it needs",
    ),
}


@pytest.mark.parametrize("case", MODEL)
def test_model(case: str, tmp_path: Path) -> None:
    raw, kind, message = MODEL[case]
    with pytest.raises(kind) as error:
        open_checkpoint(write(tmp_path, raw))
    assert message in str(error.value)


def test_the_whole_file_opens_and_no_part_of_it_does(tmp_path: Path) -> None:
    raw = document(PAIRS, TENSORS, data=DATA)
    assert open_checkpoint(write(tmp_path, raw)).config.vocab_size == 8
    for size in range(0, len(raw), 7):
        with pytest.raises(EdgeLLMError):
            open_checkpoint(write(tmp_path, raw[:size]))


def test_metadata_as_a_whole_is_bounded(tmp_path: Path) -> None:
    """A byte of an array becomes a pointer of a list: arrays that are each small enough add up."""
    array = u32(U8) + u64(2**22) + bytes(2**22)
    path = write(tmp_path, document(tuple(pair(f"k{index}", ARRAY, array) for index in range(17))))
    with pytest.raises(CheckpointError, match="metadata of more than 67108864 bytes"):
        open_checkpoint(path)


def test_parts_that_are_not_what_they_say(tmp_path: Path) -> None:
    raw = document((*PAIRS, pair("split.count", U32, u32(3))), TENSORS, data=DATA)
    path = tmp_path / "a-00001-of-00003.gguf"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"a-00002-of-00003\.gguf, a-00003-of"):
        open_checkpoint(path)
    for number_ in (2, 3):
        (tmp_path / f"a-0000{number_}-of-00003.gguf").write_bytes(raw)
    with pytest.raises(CheckpointError, match="got part None of 3, expected 0 of 3"):
        open_checkpoint(path)
    path = tmp_path / "a-00001-of-01024.gguf"
    path.write_bytes(document((pair("split.count", U32, u32(1024)),)))
    with pytest.raises(CheckpointError, match="and 1020 more are missing"):
        open_checkpoint(path)


@pytest.mark.parametrize("which", ["llama", "phi3"])
@pytest.mark.parametrize("value", [0x00, 0x7F, 0xFF])
def test_any_byte_may_lie(value: int, which: str, tmp_path: Path) -> None:
    data = DATA if which == "llama" else ONES
    raw = document(PAIRS, TENSORS, data=DATA)
    if which == "phi3":
        factor = pair("phi3.rope.scaling.attn_factor", F32, number(1.5))
        rotated = pair("phi3.rope.dimension_count", U32, u32(4))
        raw = phi3(ORIGINAL, factor, rotated, tables=FACTORS)
    header = len(raw) - len(data)
    opened = refused = 0
    for at in range(0, header, 3):
        path = write(tmp_path, raw[:at] + bytes([value]) + raw[at + 1 :])
        try:
            checkpoint = open_checkpoint(path)
            for name in checkpoint.shapes:
                checkpoint.tensor(name)
            opened += 1
        except EdgeLLMError:
            refused += 1
    assert min(opened, refused) > 0
