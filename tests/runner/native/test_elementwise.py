"""Elementwise operators against float64, at their extremes, and in bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
WIDTHS = [1, 16, 45, 200]


def gelu(x: Float64) -> Float64:
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


# name, attributes, meaning, relative error in units of 2^-24
UNARY: list[tuple[str, dict[str, float], Callable[[Float64], Float64], float]] = [
    ("silu", {}, lambda x: x / (1 + np.exp(-x)), 8),
    ("sigmoid", {}, lambda x: 1 / (1 + np.exp(-x)), 4),
    ("gelu", {}, gelu, 16),
    ("scale", {"factor": 0.3}, lambda x: x * np.float32(0.3), 1),
    ("softcap", {"cap": 3.0}, lambda x: 3 * np.tanh(x / 3), 6),
]
BINARY = [("mul", np.multiply), ("add", np.add)]


def unary(
    run_plan: Any, plan_builder: Any, x: Float32, name: str, attributes: Any, **options: Any
) -> Float32:
    builder = plan_builder()
    y = builder.op(name, builder.activations(x), **attributes)
    return np.asarray(run_plan(builder, y, **options).logits(range(len(x))))


def binary(
    run_plan: Any, plan_builder: Any, x: Float32, y: Float32, name: str, **options: Any
) -> Float32:
    builder = plan_builder()
    both = builder.activations(np.concatenate([x, y], 1))
    left = builder.op("split", both, width=[x.shape[1], y.shape[1]])
    out = builder.op(name, left, left + 1)
    return np.asarray(run_plan(builder, out, **options).logits(range(len(x))))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("name", "attributes", "meaning", "error"), UNARY, ids=[u[0] for u in UNARY]
)
def test_unary(
    run_plan: Any,
    plan_builder: Any,
    name: str,
    attributes: Any,
    meaning: Any,
    error: float,
    width: int,
) -> None:
    rng = np.random.default_rng(width)
    x = (rng.standard_normal((6, width)) * 10.0 ** np.arange(-4, 2)[:, None]).astype(np.float32)
    expected = unary(run_plan, plan_builder, x, name, attributes, isa="scalar")
    # far out in the left tail of silu and gelu e^-x amplifies the rounding of its argument
    wanted = meaning(x.astype(np.float64))
    near = (x > -4) | (name in ("scale", "softcap"))
    np.testing.assert_allclose(expected[near], wanted[near], rtol=error * 2**-24, atol=0)
    np.testing.assert_allclose(expected[~near], wanted[~near], rtol=0, atol=1e-6)
    for threads in (1, 2):
        assert_same_bits(
            unary(run_plan, plan_builder, x, name, attributes, threads=threads), expected
        )


@pytest.mark.parametrize(
    ("name", "attributes", "points", "wanted"),
    [
        ("silu", {}, [0.0, 1e4, -1e4, np.inf, 1e-40], [0.0, 1e4, 0.0, np.inf, 5e-41]),
        ("sigmoid", {}, [0.0, 1e4, -1e4, np.inf, -np.inf], [0.5, 1.0, 0.0, 1.0, 0.0]),
        ("gelu", {}, [0.0, 1e4, -1e4, np.inf], [0.0, 1e4, 0.0, np.inf]),
        ("softcap", {"cap": 30.0}, [0.0, 1e9, -1e9, np.inf, -np.inf], [0.0, 30, -30, 30, -30]),
    ],
)
def test_extremes(
    run_plan: Any, plan_builder: Any, name: str, attributes: Any, points: Any, wanted: Any
) -> None:
    x = np.array([points], np.float32)
    for isa in ("scalar", None):
        got = unary(run_plan, plan_builder, x, name, attributes, isa=isa)
        np.testing.assert_array_equal(got, np.array([wanted], np.float32))


def test_nan_stays_nan(run_plan: Any, plan_builder: Any) -> None:
    x = np.zeros((1, 20), np.float32)
    x[0, 18] = np.nan
    for name, attributes, _, _ in UNARY:
        got = unary(run_plan, plan_builder, x, name, attributes)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(x))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("name", "meaning"), BINARY, ids=[b[0] for b in BINARY])
def test_binary_rounds_once(
    run_plan: Any, plan_builder: Any, name: str, meaning: Any, width: int
) -> None:
    rng = np.random.default_rng(width)
    x, y = rng.standard_normal((2, 7, width)).astype(np.float32)
    for isa, threads in (("scalar", 1), (None, 1), (None, 2)):
        got = binary(run_plan, plan_builder, x, y, name, isa=isa, threads=threads)
        assert_same_bits(got, meaning(x, y))


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_have_a_factor_each(run_plan: Any, plan_builder: Any, width: int) -> None:
    rng = np.random.default_rng(width)
    x = rng.standard_normal((300, width)).astype(np.float32)
    factor = rng.standard_normal((300, 1)).astype(np.float32)
    for isa, threads in (("scalar", 1), (None, 1), (None, 2)):
        builder = plan_builder(context=512)
        both = builder.activations(np.concatenate([x, factor], 1))
        left = builder.op("split", both, width=[width, 1])
        scaled = builder.op("scale_rows", left, left + 1)
        runner = run_plan(builder, scaled, isa=isa, threads=threads)
        assert_same_bits(runner.logits(range(300)), x * factor)
        assert_same_bits(runner.logits([7]), (x * factor)[[7]])


@pytest.mark.parametrize("width", WIDTHS)
def test_slices_and_a_factor_that_is_a_weight(run_plan: Any, plan_builder: Any, width: int) -> None:
    rng = np.random.default_rng(width)
    x = rng.standard_normal((300, 3 * width)).astype(np.float32)
    factor = rng.standard_normal(1).astype(np.float32)
    for isa, threads, index in (("scalar", 1, 0), (None, 1, 1), (None, 2, 2)):
        builder = plan_builder(context=512)
        value = builder.activations(x)
        run = builder.op("slice", value, width=width, count=3, size=width, index=index)
        weights = (builder.raw(factor),)
        runner = run_plan(
            builder, builder.op("rescale", run, weights=weights), isa=isa, threads=threads
        )
        expected = x[:, index * width : (index + 1) * width] * factor
        assert_same_bits(runner.logits(range(300)), expected)


@pytest.mark.parametrize("width", WIDTHS)
def test_select_rows_in_any_order(run_plan: Any, plan_builder: Any, width: int) -> None:
    x = np.random.default_rng(width).standard_normal((9, width)).astype(np.float32)
    rows = [8, 0, 3, 3, 5]
    for isa, threads in (("scalar", 1), (None, 2)):
        builder = plan_builder()
        runner = run_plan(builder, builder.activations(x), isa=isa, threads=threads)
        got = runner.step({0: range(9)}, rows=rows).logits
        assert_same_bits(np.asarray(got), x[rows])
