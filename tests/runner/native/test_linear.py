"""Linear and embedding over packed weights, bit for bit against numpy and against themselves.

The oracle follows docs/quantization.md with integer dots in int64. It has no fused multiply-add, so
it rounds the float64 value of ``a * b + c`` (exact product) to float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray
from random_weights import random_packed

from edge_llm.program import pack
from edge_llm.program.formats import ACTIVATIONS, RUN, SUPER, WEIGHT_FORMATS, Activations
from edge_llm.program.integers import Integers

Float32 = NDArray[np.float32]

FLOATS = ("f32", "f16", "bf16")
INTEGERS = tuple(name for name, form in WEIGHT_FORMATS.items() if not form.is_float)
FORMATS = (*FLOATS, *INTEGERS)
Kind = tuple[str, Activations]  # a format, and how activations are rounded for it
_OF_INTEGERS: list[Kind] = [(fmt, activations) for fmt in INTEGERS for activations in ACTIVATIONS]
_ALL: list[Kind] = [*((fmt, ACTIVATIONS[0]) for fmt in FLOATS), *_OF_INTEGERS]
KINDS, INTEGER_KINDS = (
    [pytest.param(kind, id=f"{kind[0]} by {kind[1]}") for kind in kinds]
    for kinds in (_ALL, _OF_INTEGERS)
)


@dataclass
class Case:
    """A linear layer [n, k] with its activations, bound to the fixtures that run it."""

    builder: Callable[..., Any]
    run_plan: Callable[..., Any]
    data: NDArray[np.uint8]
    fmt: str
    activations: Activations
    shape: tuple[int, int]
    x: Float32
    bias: Float32 | None

    def start(self, **options: Any) -> Callable[[list[int]], Float32]:
        """``start(isa=..., threads=...)`` returns a function: rows of x -> rows of y."""
        b = self.builder(context=4096)
        x = b.embedding(b.packed(_pack_any_float(self.x), "f32", *self.x.shape))
        weight = b.packed(self.data, self.fmt, *self.shape, self.activations)
        bias = None if self.bias is None else b.raw(self.bias)
        runner = self.run_plan(b, b.linear(x, weight, bias), blocks=64, **options)
        return lambda rows: np.asarray(runner.logits(rows))

    def rows(self) -> list[int]:
        return list(range(len(self.x)))


@pytest.fixture
def case(plan_builder: Any, run_plan: Any) -> Callable[..., Case]:
    """``case(kind, n, k, rows, bias=False, weights=None)``: random weights, or all of them at the
    format's "lowest" or "highest" value; varied activations."""

    def make(
        kind: Kind, n: int, k: int, rows: int, *, bias: bool = False, weights: str | None = None
    ) -> Case:
        fmt, activations = kind
        rng = np.random.default_rng(n * 1000 + k)
        data = random_packed(fmt, n, k, rng, which=weights)
        offset = rng.standard_normal(n).astype(np.float32) if bias else None
        x = _activations(rng, rows, k)
        return Case(plan_builder, run_plan, data, fmt, activations, (n, k), x, offset)

    return make


def _activations(rng: np.random.Generator, rows: int, k: int) -> Float32:
    """Rows of several kinds: both signs, one sign, constant (every q is -128 or 127), zero, far too
    small for a normal scale, and one large value among small ones."""
    x = rng.standard_normal((rows, k)).astype(np.float32)
    x[1::7] = np.abs(x[1::7])
    x[2::7] = -3
    x[3::7] = 3
    x[4::7] = 0
    x[5::7] *= np.float32(1e-39)
    x[6::7, k // 2] = 1e4
    return x


def _pack_any_float(values: Float32) -> NDArray[np.uint8]:
    """Like pack_float, which refuses what is not finite."""
    stand_in = np.float32(1e30)
    data = pack.pack_float(np.where(np.isfinite(values), values, stand_in), WEIGHT_FORMATS["f32"])
    panels = data.view(np.float32).reshape(-1, -(-values.shape[1] // 32) * 32, 16)
    for row, column in np.argwhere(~np.isfinite(values)):
        panels[row // 16, column, row % 16] = values[row, column]
    return data


def _fma(a: NDArray[Any], b: NDArray[Any], c: Float32) -> Float32:
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def _quantize(x: Float32) -> tuple[NDArray[np.int64], Float32, Float32]:
    """q [T, K], scale [T, 1] and zero point [T, 1] of each row."""
    low = np.minimum(x.min(axis=1, keepdims=True), np.float32(0))
    high = np.maximum(x.max(axis=1, keepdims=True), np.float32(0))
    scale = np.maximum((high - low) / np.float32(255), np.finfo(np.float32).tiny)
    zero = np.clip(-128 - np.rint(low / scale), -128, 127)
    q = np.clip(np.rint(x * (np.float32(1) / scale)) + zero, -128, 127)
    return q.astype(np.int64), scale, zero.astype(np.float32)


def _quantize_runs(x: Float32) -> tuple[NDArray[np.int64], Float32]:
    """q [T, K] and the scale of each RUN columns [T, K / RUN], of rows padded with zeros."""
    runs = np.pad(x, ((0, 0), (0, -x.shape[1] % RUN))).reshape(len(x), -1, RUN)
    largest = np.abs(runs).max(axis=2, keepdims=True)
    scale = np.maximum(largest / np.float32(127), np.finfo(np.float32).tiny)
    q = np.rint(runs * (np.float32(1) / scale)).astype(np.int64)
    assert np.abs(q).max() <= 127
    return q.reshape(len(x), -1), scale[:, :, 0]


def _reference(case: Case) -> Float32:
    n, k = case.shape
    form = WEIGHT_FORMATS[case.fmt]
    if form.is_float:
        values = pack.unpack_floats(case.data, form, n, k)
        total = np.zeros((len(case.x), n), np.float32)
        for column in range(k):
            total = _fma(values[:, column], case.x[:, column, None], total)
    else:
        weight = pack.unpack_integers(case.data, form, n, k)
        if case.activations == "group":
            total = _total_by_group(weight, *_quantize_runs(case.x))
            total = _fma(np.float32(0), weight.constants(), total)
        else:
            q, scale, zero = _quantize(case.x)
            total = scale * _fma(-zero, weight.constants(), _total(weight, q))
    return total if case.bias is None else total + case.bias


def _total(weight: Integers, q: NDArray[np.int64]) -> Float32:
    """The products [T, N] of integer rows with a weight, groups ascending."""
    form, (n, _) = weight.format, weight.shape
    groups = weight.scale.shape[1]
    codes = weight.codes.astype(np.int64).reshape(n, groups, -1)
    total = np.zeros((len(q), n), np.float32)
    scaled = lifted = np.zeros((len(q), n), np.int64)
    for g, part in enumerate(np.split(q, groups, axis=1)):
        dots, sums = part @ codes[:, g].T, part.sum(axis=1, keepdims=True)
        scale = weight.scale[:, g]
        minimum = np.zeros(0) if weight.minimum is None else weight.minimum[:, g]
        if form.has_factors:
            assert weight.factor is not None
            scaled = scaled + scale.astype(np.int64) * dots
            if form.minimum == "q8":
                lifted = lifted + minimum.astype(np.int64) * sums
            assert np.abs(scaled).max() < 2**31
            each = SUPER // form.group
            if g % each == each - 1:
                column = g // each
                total = _fma(weight.factor[:, column], scaled.astype(np.float32), total)
                if weight.minimum_factor is not None:
                    by = -weight.minimum_factor[:, column]
                    total = _fma(by, lifted.astype(np.float32), total)
                scaled = lifted = np.zeros_like(scaled)
            continue
        if form.scale == "e8m0":
            scale = np.exp2(scale.astype(np.float32) - 128)
        if form.minimum == "zero":
            dots = dots - minimum.astype(np.int64) * sums
        total = _fma(scale, dots.astype(np.float32), total)
        if form.minimum == "f16":
            total = _fma(minimum, sums.astype(np.float32), total)
    return total


def _total_by_group(weight: Integers, q: NDArray[np.int64], scales: Float32) -> Float32:
    """The products [T, N] of rows that have a scale for each RUN columns."""
    form, (n, k) = weight.format, weight.shape
    codes = np.zeros((n, q.shape[1]), np.int64)
    codes[:, :k] = weight.codes
    step = min(form.group or RUN, RUN)
    total = np.zeros((len(q), n), np.float32)
    for begin in range(0, q.shape[1], step):
        part = q[:, begin : begin + step]
        dots, sums = part @ codes[:, begin : begin + step].T, part.sum(axis=1, keepdims=True)
        own = scales[:, begin // RUN, None]
        if form.group == 0:
            total = _fma(own, dots.astype(np.float32), total)
            continue
        g = begin // form.group
        scale = weight.scale[:, g].astype(np.float32)
        minimum = None if weight.minimum is None else weight.minimum[:, g].astype(np.float32)
        if form.scale == "e8m0":
            scale = np.exp2(scale - 128)
        if weight.factor is not None:
            scale = weight.factor[:, begin // SUPER].astype(np.float32) * scale
        if form.minimum == "zero":
            assert minimum is not None
            dots = dots - minimum.astype(np.int64) * sums
        product = scale * dots.astype(np.float32)
        if form.minimum in ("f16", "q8"):
            assert minimum is not None
            if weight.minimum_factor is not None:
                minimum = -weight.minimum_factor[:, begin // SUPER].astype(np.float32) * minimum
            product = _fma(minimum, sums.astype(np.float32), product)
        total = _fma(own, product, total)
    if form.group == 0:
        total = _fma(weight.scale[:, 0], total, np.zeros_like(total))
    return total


def _shapes(fmt: str) -> list[tuple[int, int]]:
    """Padding in n and k, several groups, an odd number of them, more than one block of k of the
    many-row kernels."""
    form = WEIGHT_FORMATS[fmt]
    if form.group:
        k = form.columns
        return [(16, k), (40, 5 * k), (23, (2176 // k | 1) * k)]
    return [(16, 32), (40, 100), (23, 37), (17, 1100)]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_linear_is_the_documented_arithmetic(
    case: Callable[..., Case], kind: Kind, isa: str, bias: bool
) -> None:
    for n, k in _shapes(kind[0]):
        layer = case(kind, n, k, 21, bias=bias)
        assert_same_bits(layer.start(isa=isa)(layer.rows()), _reference(layer))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", INTEGER_KINDS)
@pytest.mark.parametrize("weights", ["lowest", "highest"])
def test_largest_integer_sums_are_exact(
    case: Callable[..., Case], kind: Kind, isa: str, weights: str
) -> None:
    # Rows 2 and 3 quantize to -128 (by group -127) and 127 throughout, so with all weights alike
    # sums are largest.
    layer = case(kind, 33, 1024, 17, weights=weights)
    expected = _reference(layer)
    multiply = layer.start(isa=isa)
    for height in (1, 4, 8, 17):
        parts = [multiply(layer.rows()[i : i + height]) for i in range(0, 17, height)]
        assert_same_bits(np.concatenate(parts), expected)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("weights", ["lowest", "highest"])
def test_sums_may_wrap_on_the_way_to_one_that_fits(
    case: Callable[..., Case], isa: str, activations: Activations, weights: str
) -> None:
    # The widest layer: 127 * 128 * K fits 31 bits, the offset of unsigned weights, 128 * 128 * K,
    # does not.
    layer = case(("i8", activations), 16, pack.MAX_I8_K, 2, weights=weights)
    layer.x[:] = -3  # quantizes to -128
    multiply = layer.start(isa=isa)
    expected = _reference(layer)
    assert_same_bits(multiply([0]), expected[:1])
    assert_same_bits(multiply([0, 1]), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_threads_and_isa_do_not_change_a_bit(case: Callable[..., Case], kind: Kind) -> None:
    n, k = 55, 768
    layer = case(kind, n, k, 70, bias=True)
    expected = layer.start(isa="scalar", threads=1)(layer.rows())
    for isa in isas():
        for threads in (1, 2, 3):
            multiply = layer.start(isa=isa, threads=threads)
            for height in (*range(1, 18), 70) if threads == 2 else (1, 5, 70):
                starts = range(0, 70, height)
                parts = [multiply(layer.rows()[i : i + height]) for i in starts]
                assert_same_bits(np.concatenate(parts), expected)


@pytest.mark.parametrize("fmt", ["i4g32", "u4g32m", "u4g64z", "e2m1g32"])
def test_scales_that_are_not_finite_give_the_same_bits(case: Callable[..., Case], fmt: str) -> None:
    """No export writes them, but a file may come from anywhere."""
    layer = case((fmt, "group"), 40, 512, 9)
    if fmt == "e2m1g32":
        layer.data[:2] = 255  # exponents of the first two rows
    else:
        tail = WEIGHT_FORMATS[fmt].group * 8 + 32 * (fmt == "u4g64z")
        layer.data[tail : tail + 4].view(np.uint16)[:] = 0x7C00
    expected = layer.start(isa="scalar")(layer.rows())
    assert np.isnan(expected[:, :2]).all()
    assert np.isfinite(expected[:, 2:]).all()
    for isa in isas():
        got = layer.start(isa=isa)(layer.rows())
        assert np.isnan(got[:, :2]).all()  # of any payload
        assert_same_bits(got[:, 2:], expected[:, 2:])


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_finite_fail_alone(
    case: Callable[..., Case], kind: Kind, isa: str
) -> None:
    layer = case(kind, 40, 256, 12)
    expected = layer.start(isa=isa)(layer.rows())
    bad = {1: np.nan, 4: np.inf, 9: -np.inf}
    for row, value in bad.items():
        layer.x[row, 17 * row] = value
    if kind[0] in INTEGERS and kind[1] == "token":
        bad[11] = np.float32(3e38)  # finite, but its range is not
        layer.x[11, :2] = 3e38, -3e38
    got = layer.start(isa=isa)(layer.rows())
    for row in range(12):
        if row in bad:
            assert not np.isfinite(got[row]).any()
        else:
            assert_same_bits(got[row], expected[row])


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("fmt", FORMATS)
def test_embedding_reads_dequantized_rows(
    case: Callable[..., Case], plan_builder: Any, run_plan: Any, fmt: str, isa: str
) -> None:
    for n, k in _shapes(fmt):
        table = case((fmt, "token"), n, k, 1)
        b = plan_builder()
        runner = run_plan(b, b.embedding(b.packed(table.data, fmt, n, k)), isa=isa, threads=2)
        ids = [n - 1, 0, n // 2, n - 1, 7]
        expected = pack.dequantize(table.data, WEIGHT_FORMATS[fmt], n, k)[ids]
        assert_same_bits(runner.logits(ids), expected)
