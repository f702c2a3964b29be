"""Matrices in integer formats: what their numbers stand for, and which are refused."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest

from edge_llm.errors import ExportError
from edge_llm.program.formats import LEVELS, WEIGHT_FORMATS
from edge_llm.program.integers import CODE_RANGES, Integers

INTEGERS = [name for name, form in WEIGHT_FORMATS.items() if not form.is_float]


def random_integers(name: str, n: int, k: int, seed: int = 0) -> Integers:
    """A matrix whose every field takes all the values that its type has room for."""
    form, rng = WEIGHT_FORMATS[name], np.random.default_rng(seed)
    groups, supers = (n, k // (form.group or k)), (n, k // 256)

    def half(shape: tuple[int, int]) -> Any:
        return (rng.normal(0, 0.02, shape)).astype(np.float16)

    dtype, low, high = CODE_RANGES[form.code]
    codes: Any = rng.integers(low, high + 1, (n, k)).astype(dtype)
    if form.code in LEVELS:
        codes = np.array(LEVELS[form.code], np.int8)[rng.integers(0, 16, (n, k))]
    small: Any = rng.integers(0, 256, (2, *groups), dtype=np.uint8)
    scale = {
        "f32": half(groups).astype(np.float32),
        "f16": half(groups),
        "q8": small[0],
        "s8": small[0].view(np.int8),
        "e8m0": small[0] // 16 + 110,
    }
    minimum = {
        "none": None,
        "f16": half(groups),
        "q8": small[1],
        "zero": np.minimum(small[1] % 17, 16),
    }
    return Integers(
        form,
        codes,
        scale[form.scale],
        minimum[form.minimum],
        half(supers) if form.has_factors else None,
        half(supers) if form.minimum == "q8" else None,
    )


def exact(matrix: Integers) -> Any:
    """The values in float64, which holds them without rounding."""
    k = matrix.shape[1]
    form = matrix.format

    def spread(values: Any) -> Any:
        return np.repeat(values.astype(np.float64), k // values.shape[1], axis=1)

    codes, scale = matrix.codes.astype(np.float64), spread(matrix.scale)
    if form.scale == "e8m0":
        return 2.0 ** (scale - 128) * codes
    if form.scale == "s8":
        return spread(matrix.factor) * scale * codes
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


def test_rows_whose_sum_is_not_finite() -> None:
    codes = np.full((1, 64), 12, np.int8)
    with pytest.raises(ExportError, match="the sum of a row's weights is not finite"):
        Integers(WEIGHT_FORMATS["e2m1g32"], codes, np.full((1, 2), 252, np.uint8)).constants()


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
        ("nl4g32", {"codes": np.zeros((4, 512), np.int8)}, "none of its levels"),
        ("e2m1g32", {"scale": np.full((4, 16), 253, np.uint8)}, "expected at most 252"),
        ("i6g16k", {"codes": np.full((4, 512), 32, np.int8)}, r"span \[32, 32\]"),
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
