"""Block formats against the decoders and encoders of the ``gguf`` package."""

from __future__ import annotations

import tracemalloc

import gguf
import numpy as np
import pytest
from fixtures_gguf_encoders import ENCODERS, encode_blocks
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.llm.checkpoints.gguf.blocks import (
    BLOCK_FORMATS,
    CHUNK,
    UNSUPPORTED_TYPES,
)
from edge_llm.llm.checkpoints.gguf.integers import INTEGER_BLOCKS

# Where each format keeps its fp16 scales; all other bytes may have any value.
SCALES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "MXFP4": (),
}
BY_NAME = {block.name: block for block in BLOCK_FORMATS.values()}


def random_blocks(name: str, count: int) -> NDArray[np.uint8]:
    """Any bytes, with finite scales of either sign."""
    random = np.random.default_rng(BY_NAME[name].bytes)
    blocks = random.integers(0, 256, (count, BY_NAME[name].bytes), dtype=np.uint8)
    for at in SCALES[name]:
        scales = random.normal(size=(count, 1)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = np.minimum(blocks[:, 0], 252)  # weights beyond are not finite
    return blocks


def decoded(name: str, blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = BY_NAME[name].decode(blocks)
    return values


def test_every_format_is_known_to_ggml() -> None:
    sizes = {int(kind): (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    for number, block in BLOCK_FORMATS.items():
        assert sizes[number] == (block.name, block.size, block.bytes)
    for number, name in UNSUPPORTED_TYPES.items():
        assert sizes[number][0] == name
    assert SCALES.keys() == BY_NAME.keys() - {"F32", "F16", "BF16"}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("count", [1, 1000])
def test_any_bytes_decode_as_ggml_does(name: str, count: int) -> None:
    blocks = random_blocks(name, count)
    kind = gguf.GGMLQuantizationType[name]
    expected = gguf.quants.dequantize(blocks, kind).reshape(count, -1)
    np.testing.assert_array_equal(decoded(name, blocks), expected)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_within_rounding_of_the_source(name: str) -> None:
    source = np.random.default_rng(0).normal(size=(512, 32)).astype(np.float32)
    blocks = gguf.quants.quantize(source, gguf.GGMLQuantizationType[name])
    largest = np.abs(source).max(axis=1, keepdims=True)
    bits = int(name[1])
    # An affine grid spans max - min; a symmetric one has its last step on one side only. A scale
    # is rounded to fp16, which shifts the far end of the grid by up to 2**-11 of it.
    if name.endswith("_1"):
        step = (source.max(axis=1) - source.min(axis=1))[:, None] / (2**bits - 1)
        bound = step / 2
    elif name == "Q8_0":
        bound = largest / 127 / 2
    else:
        bound = largest / 2 ** (bits - 1)
    error = np.abs(decoded(name, blocks) - source)
    assert (error <= bound + largest * 2**-10).all()
    assert error.max() > 0


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("offset", [0.0, 2.0, -2.0])
def test_super_blocks_within_rounding_of_the_source(name: str, offset: float) -> None:
    random = np.random.default_rng(1)
    widths = np.exp(random.normal(size=(64, 16, 1)))
    source = (random.normal(size=(64, 16, 16)) * widths + offset).reshape(64, 256)
    blocks, step = encode_blocks(source.astype(np.float32), name)
    got = decoded(name, blocks).reshape(source.shape)
    error = np.abs(got - source)
    assert (error <= step / 2 + np.abs(source) * 1e-6).all()
    # The bound is the format's own: a step is a share of the block as its bits allow.
    bits = int(name.strip("IQ")[0])
    largest = np.abs(source).max(axis=1, keepdims=True)
    assert (step <= 2 * largest / (2**bits - 2) * 1.6).all()


def test_chunks_join() -> None:
    several = random_blocks("Q6_K", CHUNK // 256 + 3)
    single = np.concatenate([decoded("Q6_K", block[None]) for block in several])
    np.testing.assert_array_equal(decoded("Q6_K", several), single)


@pytest.mark.parametrize("name", SCALES)
def test_memory_is_that_of_the_result(name: str) -> None:
    block = BY_NAME[name]
    blocks = np.zeros((2**23 // block.size, block.bytes), np.uint8)  # 32 MiB of float32
    tracemalloc.start()
    block.decode(blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 * 2**20


def test_infinite_scales_do_not_warn() -> None:
    blocks = np.full((1, 18), 0x7C, np.uint8)
    blocks[:, 2:] = 0x08  # d * 0 and d * -8
    blocks[:, 0] = 0
    assert not np.isfinite(decoded("Q4_0", blocks)).any()


@pytest.mark.parametrize("kind", INTEGER_BLOCKS)
def test_integers_give_the_weights(kind: int) -> None:
    name = BLOCK_FORMATS[kind].name
    blocks = random_blocks(name, 1000)
    if name == "Q8_0":
        blocks[:, 2:] = np.maximum(blocks[:, 2:].view(np.int8), -127).view(np.uint8)
    integers = INTEGER_BLOCKS[kind].read(blocks, 20)
    assert integers.format == INTEGER_BLOCKS[kind].format
    assert integers.shape == (20, 50 * BLOCK_FORMATS[kind].size)
    np.testing.assert_array_equal(integers.dequantize(), decoded(name, blocks).reshape(20, -1))


@pytest.mark.parametrize(
    ("kind", "byte", "said"),
    [
        (8, 0x80, r"codes of i8 span \[-128, -128\]"),
        (39, 0xFF, "scale has exponents up to 255, expected at most 252"),
    ],
)
def test_numbers_that_no_program_holds(kind: int, byte: int, said: str) -> None:
    blocks = np.full((3, BLOCK_FORMATS[kind].bytes), byte, np.uint8)
    blocks[:, 0] = byte
    with pytest.raises(ExportError, match=said):
        INTEGER_BLOCKS[kind].read(blocks, 3)
