"""The Hadamard transform against its matrix, and one result in bits whoever computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from hadamard_matrix import hadamard_matrix
from numpy.typing import NDArray

from edge_llm.errors import NativeError
from edge_llm.program.hadamard import has_transform, paley_matrix

Float32 = NDArray[np.float32]


def transform(run_plan: Any, plan_builder: Any, x: Float32, **options: Any) -> Float32:
    builder = plan_builder()
    y = builder.op("hadamard", builder.activations(x))
    return np.asarray(run_plan(builder, y, **options).logits(range(len(x))))


def test_the_matrix_of_order_28_is_that_of_the_checkpoints() -> None:
    made = paley_matrix()
    np.testing.assert_array_equal(made @ made.T, 28 * np.eye(28))
    np.testing.assert_array_equal(made, made.T)
    # Rows 2 and 15 of get_had28 in facebookresearch/SpinQuant, utils/hadamard_utils.py, b963793.
    for row, signs in ((2, "++++-++----++-++-+-++----++-"), (15, "+-+-++----++-+---+--++++--+-")):
        assert "".join("+" if value > 0 else "-" for value in made[row]) == signs


def test_which_sizes_there_are() -> None:
    sizes = [size for size in range(20_000) if has_transform(size)]
    powers = [2**k for k in range(6, 15)]
    assert sizes == sorted([*powers, *(28 * 2**k for k in range(4, 10))])


@pytest.mark.parametrize("size", [64, 128, 448, 1024, 1792, 8192])
def test_against_the_matrix_and_in_bits(run_plan: Any, plan_builder: Any, size: int) -> None:
    rng = np.random.default_rng(size)
    x = (rng.standard_normal((5, size)) * 10.0 ** rng.integers(-3, 4, (5, 1))).astype("f4")
    expected = transform(run_plan, plan_builder, x, isa="scalar")
    wanted = x.astype(np.float64) @ hadamard_matrix(size).T
    off = np.abs(expected - wanted).max(axis=1) / np.abs(wanted).max(axis=1)
    assert off.max() < 2e-6
    for isa in isas():
        for threads in (1, 2):
            got = transform(run_plan, plan_builder, x, isa=isa, threads=threads)
            assert_same_bits(got, expected)
    for row in range(len(x)):  # neighbours do not matter
        assert_same_bits(
            transform(run_plan, plan_builder, x[row : row + 1]), expected[row : row + 1]
        )


@pytest.mark.parametrize("size", [32, 96, 224, 320])
def test_other_sizes_are_refused(run_plan: Any, plan_builder: Any, size: int) -> None:
    with pytest.raises(NativeError, match="does not divide"):
        transform(run_plan, plan_builder, np.ones((1, size), np.float32))
