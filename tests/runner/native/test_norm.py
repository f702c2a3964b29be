"""RMS norm and layer norm against float64, and one result in bits whoever computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def norm(
    run_plan: Any,
    plan_builder: Any,
    x: Float32,
    weight: Float32 | int,
    eps: float,
    **options: Any,
) -> Float32:
    """``weight`` is a size where there is none."""
    builder = plan_builder()
    plain = isinstance(weight, int)
    y = builder.op(
        "rms_norm",
        builder.activations(x),
        weights=() if plain else (builder.raw(weight),),
        size=weight if plain else len(weight),
        eps=eps,
    )
    return np.asarray(run_plan(builder, y, **options).logits(range(len(x))))


def reference(x: Float32, weight: Float32, eps: float) -> NDArray[np.float64]:
    runs = x.astype(np.float64).reshape(len(x), -1, len(weight))
    y = runs / np.sqrt((runs**2).mean(-1, keepdims=True) + eps) * weight
    return np.asarray(y.reshape(x.shape))


@pytest.mark.parametrize(("size", "runs"), [(1, 3), (7, 1), (16, 4), (40, 3), (64, 9), (576, 1)])
def test_against_float64_and_in_bits(
    run_plan: Any, plan_builder: Any, size: int, runs: int
) -> None:
    rng = np.random.default_rng(size)
    x = (rng.standard_normal((5, size * runs)) * 10.0 ** rng.integers(-3, 4, (5, 1))).astype("f4")
    weight = rng.standard_normal(size).astype(np.float32)
    expected = norm(run_plan, plan_builder, x, weight, 1e-5, isa="scalar")
    np.testing.assert_allclose(expected, reference(x, weight, 1e-5), rtol=1e-6, atol=0)
    ones = norm(run_plan, plan_builder, x, np.ones(size, np.float32), 1e-5, isa="scalar")
    for threads in (1, 2):
        got = norm(run_plan, plan_builder, x, weight, 1e-5, threads=threads)
        assert_same_bits(got, expected)
        plain = norm(run_plan, plan_builder, x, size, 1e-5, threads=threads)
        assert_same_bits(plain, ones)  # a product with 1 rounds nothing


def test_a_row_of_zeros_stays_zero(run_plan: Any, plan_builder: Any) -> None:
    x = np.zeros((2, 48), np.float32)
    got = norm(run_plan, plan_builder, x, np.ones(48, np.float32), 1e-6)
    np.testing.assert_array_equal(got, 0)


def test_a_broken_run_spoils_no_other(run_plan: Any, plan_builder: Any) -> None:
    x = np.random.default_rng(0).standard_normal((3, 60)).astype(np.float32)
    weight = np.ones(20, np.float32)
    expected = norm(run_plan, plan_builder, x, weight, 1e-6)
    x[1, 20:40] = np.nan
    got = norm(run_plan, plan_builder, x, weight, 1e-6)
    assert np.isnan(got[1, 20:40]).all()
    got[1, 20:40] = expected[1, 20:40]
    np.testing.assert_array_equal(got, expected)


# --- layer norm ----------------------------------------------------------------------------------


def layer_norm(
    run_plan: Any,
    plan_builder: Any,
    x: Float32,
    weight: Float32,
    bias: Float32 | None,
    eps: float,
    **options: Any,
) -> Float32:
    builder = plan_builder()
    value = builder.activations(x)
    weights = (builder.raw(weight), -1 if bias is None else builder.raw(bias))
    y = builder.op("layer_norm", value, weights=weights, eps=eps)
    return np.asarray(run_plan(builder, y, **options).logits(range(len(x))))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("size", [1, 7, 16, 40, 576])
def test_layer_norm_against_float64_and_in_bits(
    run_plan: Any, plan_builder: Any, size: int, biased: bool
) -> None:
    rng = np.random.default_rng(size)
    x = (3 + rng.standard_normal((5, size)) * 10.0 ** rng.integers(-2, 3, (5, 1))).astype("f4")
    weight, bias = rng.standard_normal((2, size)).astype(np.float32)
    biases = bias if biased else None
    got = layer_norm(run_plan, plan_builder, x, weight, biases, 1e-3, isa="scalar")
    apart = x.astype(np.float64) - x.mean(axis=1, keepdims=True, dtype=np.float64)
    wanted = apart / np.sqrt((apart**2).mean(axis=1, keepdims=True) + 1e-3) * weight
    np.testing.assert_allclose(got, wanted + (bias if biased else 0), rtol=1e-4, atol=2e-4)
    for isa in isas():
        for threads in (1, 2):
            options = {"isa": isa, "threads": threads}
            again = layer_norm(run_plan, plan_builder, x, weight, biases, 1e-3, **options)
            assert_same_bits(again, got)


def test_layer_norm_of_equal_numbers_is_the_bias(run_plan: Any, plan_builder: Any) -> None:
    x = np.full((2, 37), 3.0, np.float32)
    bias = np.arange(37, dtype=np.float32)
    got = layer_norm(run_plan, plan_builder, x, np.ones(37, np.float32), bias, 1e-6)
    np.testing.assert_array_equal(got, [bias, bias])
