"""Matrices in integer formats: what their numbers stand for, and which are refused."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest

from edge_llm.errors import ExportError
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.integers import Integers

INTEGERS = [name for name, form in WEIGHT_FORMATS.items() if not form.is_float]


def random_integers(name: str, n: int, k: int, seed: int = 0) -> Integers:
    """A matrix whose every field takes all the values that its type has room for."""
    form, rng = WEIGHT_FORMATS[name], np.random.default_rng(seed)
    groups, supers = (n, k // (form.group or k)), (n, k // 256)

    def half(shape: tuple[int, int]) -> Any:
        return (rng.normal(0, 0.02, shape)).astype(np.float16)

    low, high, dtype = {
        "i4": (-8, 7, np.int8),
        "u4": (0, 15, np.uint8),
        "i8": (-127, 127, np.int8),
    }[form.code]
    small: Any = rng.integers(0, 256, (2, *groups), dtype=np.uint8)
    scale = {"f32": half(groups).astype(np.float32), "f16": half(groups), "q8": small[0]}
    minimum = {
        "none": None,
        "f16": half(groups),
        "q8": small[1],
        "zero": np.minimum(small[1] % 17, 16),
    }
    return Integers(
        form,
        rng.integers(low, high + 1, (n, k)).astype(dtype),
        scale[form.scale],
        minimum[form.minimum],
        half(supers) if form.scale == "q8" else None,
        half(supers) if form.scale == "q8" else None,
    )


def exact(matrix: Integers) -> Any:
    """The values in float64, which holds them without rounding."""
    k = matrix.shape[1]
    form = matrix.format

    def spread(values: Any) -> Any:
        return np.repeat(values.astype(np.float64), k // values.shape[1], axis=1)

    codes, scale = matrix.codes.astype(np.float64), spread(matrix.scale)
    if form.minimum == "none":
        return scale * codes
    minimum = spread(matrix.minimum)
    if form.minimum == "f16":
        return scale * codes + minimum
    if form.minimum == "zero":
        return scale * (codes - minimum)
    return spread(matrix.factor) * scale * codes - spread(matrix.minimum_factor) * minimum


@pytest.mark.parametrize("name", INTEGERS)
def test_values_are_rounded_once(name: str) -> None:
    matrix = random_integers(name, 21, 512)
    values = matrix.dequantize()
    assert values.dtype == np.float32
    assert np.array_equal(values, exact(matrix).astype(np.float32))
    constants = matrix.constants()
    # every term is a multiple of 2**-32 or so: float64 adds them up without rounding
    assert np.array_equal(constants, exact(matrix).sum(axis=1).astype(np.float32))


@pytest.mark.parametrize("name", INTEGERS)
def test_rows(name: str) -> None:
    matrix = random_integers(name, 21, 512)
    values = matrix.dequantize()
    order = np.random.default_rng(1).permutation(21)
    assert np.array_equal(matrix.rows(order).dequantize(), values[order])
    assert np.array_equal(matrix.rows(slice(3, 7)).dequantize(), values[3:7])


def test_the_numbers_are_those_of_ggml() -> None:
    """The grids that GGUF files share with us mean the same, to the bit."""
    q4_1 = random_integers("u4g32m", 4, 64)
    n, k = q4_1.shape
    packed = q4_1.codes.reshape(n, k // 32, 2, 16)
    nibbles = packed[:, :, 0] | packed[:, :, 1] << 4
    assert q4_1.minimum is not None
    blocks = np.concatenate(
        [
            q4_1.scale[:, :, None].view(np.uint8),
            q4_1.minimum[:, :, None].view(np.uint8),
            nibbles,
        ],
        axis=2,
    )
    values = gguf.quants.dequantize(blocks.reshape(n, -1), gguf.GGMLQuantizationType.Q4_1)
    assert np.array_equal(q4_1.dequantize(), values)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("u4g32m", {"codes": np.full((4, 512), 16, np.uint8)}, r"span \[16, 16\]"),
        ("i8", {"codes": np.full((4, 512), -128, np.int8)}, r"span \[-128, -128\]"),
        ("u4g32m", {"codes": np.zeros((4, 512), np.int8)}, r"codes are int8 \[4, 512\]"),
        ("u4g32k", {"codes": np.zeros((4, 128), np.uint8)}, "columns in groups, got 128"),
        ("u4g32m", {"minimum": None}, "minimum is nothing, expected float16"),
        ("i4g32", {"minimum": np.zeros((4, 16), np.float16)}, "expected nothing"),
        ("u4g32k", {"factor": np.full((4, 2), np.inf, np.float16)}, "factor has values"),
        ("i4g64", {"scale": np.zeros((4, 16), np.float16)}, r"expected float16 \[4, 8\]"),
        ("i4g64", {"format": WEIGHT_FORMATS["f16"]}, "expected an integer format"),
    ],
)
def test_numbers_that_do_not_fit(name: str, change: dict[str, Any], said: str) -> None:
    made = random_integers(name, 4, 512)
    fields = {
        field: getattr(made, field)
        for field in ("format", "codes", "scale", "minimum", "factor", "minimum_factor")
    }
    with pytest.raises(ExportError, match=said):
        Integers(**(fields | change))
