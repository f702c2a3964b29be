"""Routes against float64, and experts against linears of their own, bit for bit."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray
from random_weights import random_packed

from edge_llm.errors import NativeError
from edge_llm.program.formats import WEIGHT_FORMATS, Activations
from edge_llm.program.ops import ACTIVATIONS, SCORINGS
from edge_llm.program.pack import unpack_floats

Float32 = NDArray[np.float32]

ROWS = 37
WIDTH, INNER, EXPERTS = 64, 48, 11
FORMATS = [name for name, form in WEIGHT_FORMATS.items() if form.is_panel]


# --- routes --------------------------------------------------------------------------------------


def routed(
    run_plan: Any,
    plan_builder: Any,
    logits: Float32,
    bias: Float32 | None = None,
    factors: Float32 | None = None,
    **options: Any,
) -> Float32:
    settings = {"chosen": 3, "scoring": 0, "normalize": 0, "eps": 0.0, "scale": 1.0}
    settings["threshold"] = 0.0
    settings |= {key: options.pop(key) for key in settings.keys() & options.keys()}
    builder = plan_builder()
    weights = (-1 if bias is None else builder.raw(bias),)
    if factors is not None:
        weights = (*weights, builder.raw(factors))
    y = builder.op("route", builder.activations(logits), weights=weights, **settings)
    return np.asarray(run_plan(builder, y, **options).logits(range(len(logits))))


def expected_shares(
    logits: Float32,
    bias: Float32 | None,
    *,
    chosen: int,
    scoring: int,
    normalize: int,
    eps: float,
    scale: float,
    threshold: float,
) -> NDArray[np.float64]:
    """The meaning of `route` in float64, whose logits are far enough apart."""
    x = logits.astype(np.float64)
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    scores = powers / powers.sum(axis=1, keepdims=True)
    if SCORINGS[scoring] == "sigmoid":
        scores = 1 / (1 + np.exp(-x))
    keys = x if bias is None else scores + bias
    out = np.zeros_like(x)
    for row in range(len(x)):
        taken = np.argsort(-keys[row], kind="stable")[:chosen]
        shares = scores[row, taken]
        if SCORINGS[scoring] == "softmax of the chosen":
            shares = powers[row, taken] / powers[row, taken].sum()
        if SCORINGS[scoring] == "softmax of those near":
            shares = near_shares(x[row], taken, threshold)
        if normalize:
            shares = shares / (shares.sum() + eps)
        out[row, taken] = shares * scale
    return out


def near_shares(
    logits: NDArray[np.float64], taken: NDArray[np.int64], threshold: float
) -> NDArray[np.float64]:
    left, shares = list(range(len(logits))), []
    for own in taken:
        top = logits[own]
        far = [(top - x) / max(abs(x), top) > threshold for x in logits[left]]
        near = [e for e, beyond in zip(left, far, strict=True) if not beyond]
        shares.append(1 / np.exp(logits[near] - top).sum())
        left.remove(own)
    return np.array(shares)


@pytest.mark.parametrize("experts", [5, 16, 60, 128])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scoring", range(len(SCORINGS)))
@pytest.mark.parametrize(("normalize", "eps", "scale"), [(0, 0.0, 1.0), (1, 0.0625, 2.5)])
def test_routes(
    run_plan: Any,
    plan_builder: Any,
    experts: int,
    biased: bool,
    scoring: int,
    normalize: int,
    eps: float,
    scale: float,
) -> None:
    rng = np.random.default_rng(experts)
    logits = (3 * rng.standard_normal((ROWS, experts))).astype(np.float32)
    bias = rng.standard_normal(experts).astype(np.float32) if biased else None
    settings = {"chosen": 4, "scoring": scoring, "normalize": normalize, "eps": eps, "scale": scale}
    settings["threshold"] = 0.3
    got = routed(run_plan, plan_builder, logits, bias, isa="scalar", **settings)
    wanted = expected_shares(logits, bias, **settings)
    assert ((got != 0) == (wanted != 0)).all()
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    for isa in isas():
        for threads in (1, 3):
            again = routed(
                run_plan, plan_builder, logits, bias, isa=isa, threads=threads, **settings
            )
            assert_same_bits(again, got)


def test_shares_have_a_factor_of_their_expert(run_plan: Any, plan_builder: Any) -> None:
    rng = np.random.default_rng(3)
    logits = (3 * rng.standard_normal((ROWS, 20))).astype(np.float32)
    bias, factors = rng.standard_normal((2, 20)).astype(np.float32)
    for isa in isas():
        for given in (None, bias):
            plain = routed(run_plan, plan_builder, logits, given, isa=isa, scale=1.5)
            got = routed(run_plan, plan_builder, logits, given, factors, isa=isa, scale=1.5)
            assert_same_bits(got, np.where(plain != 0, plain * factors, 0))


def test_the_near_are_those_of_sparsemixer(run_plan: Any, plan_builder: Any) -> None:
    """As transformers routes Phi-3.5-MoE, at one jitter and another."""
    torch = pytest.importorskip("torch")  # the tests here run where there is none, too
    from transformers.models.phimoe.modeling_phimoe import sparsemixer

    logits = np.random.default_rng(5).standard_normal((ROWS, 16)).astype(np.float32)
    logits[3:6] -= 4.0  # all below 0
    for jitter in (0.01, 0.2):
        settings = {"chosen": 2, "scoring": 3, "threshold": 2 * jitter}
        got = routed(run_plan, plan_builder, logits, **settings)
        shares, taken = sparsemixer(torch.from_numpy(logits), jitter, training=False)
        wanted = np.zeros_like(logits)
        np.put_along_axis(wanted, taken.numpy(), shares.numpy(), axis=1)
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_the_first_of_equal_experts_is_chosen(run_plan: Any, plan_builder: Any) -> None:
    logits = np.array([[1, 2, 2, 0, 2, 2], [0, 0, 0, 0, 0, 0]], np.float32)
    for isa in isas():
        for scoring in range(len(SCORINGS)):
            got = routed(run_plan, plan_builder, logits, isa=isa, chosen=2, scoring=scoring)
            assert [row.nonzero()[0].tolist() for row in got] == [[1, 2], [0, 1]]


def test_logits_that_are_not_numbers_give_shares_that_are_not(
    run_plan: Any, plan_builder: Any
) -> None:
    logits = np.full((1, 20), np.nan, np.float32)
    for isa in isas():
        for scoring in range(len(SCORINGS)):
            got = routed(run_plan, plan_builder, logits, isa=isa, scoring=scoring)
            assert np.isnan(got[0]).sum() == 3


# --- experts -------------------------------------------------------------------------------------


class Case:
    """Random stacks in one format, and rows with random shares in some of their experts."""

    def __init__(
        self,
        fmt: str,
        biased: bool,
        activation: str,
        rows: int = ROWS,
        activations: Activations = "token",
    ) -> None:
        self.activations = activations
        rng = np.random.default_rng(7)
        k = 256 if WEIGHT_FORMATS[fmt].has_factors else 128
        self.fmt, self.activation = fmt, activation
        self.width, self.inner = k, k if fmt not in ("f32", "i8") else INNER
        self.shapes = {
            "gate": (self.inner, self.width),
            "up": (self.inner, self.width),
            "down": (self.width, self.inner),
        }
        self.matrices = {
            name: [random_packed(fmt, n, k, rng) for _ in range(EXPERTS)]
            for name, (n, k) in self.shapes.items()
        }
        self.biases = {
            name: rng.standard_normal((EXPERTS, n)).astype(np.float32) if biased else None
            for name, (n, k) in self.shapes.items()
        }
        self.x = rng.standard_normal((rows, self.width)).astype(np.float32)
        self.shares = np.zeros((rows, EXPERTS), np.float32)
        for row in self.shares:
            taken = rng.choice(EXPERTS - 1, 3, replace=False)  # nobody goes to the last
            row[taken] = rng.uniform(0.1, 1.0, 3)

    def _operands(self, builder: Any) -> tuple[int, int]:
        both = builder.activations(np.concatenate([self.x, self.shares], axis=1))
        x: int = builder.op("split", both, width=[self.width, EXPERTS])
        return x, x + 1

    def run(self, builder: Any, run_plan: Any, *, chosen: int = 3, **options: Any) -> Any:
        x, shares = self._operands(builder)
        stacks = [
            builder.stack(
                np.concatenate(self.matrices[name]), self.fmt, (EXPERTS, *shape), self.activations
            )
            for name, shape in self.shapes.items()
        ]
        biases = [
            -1 if self.biases[name] is None else builder.raw(self.biases[name])
            for name in self.shapes
        ]
        y = builder.op(
            "experts",
            x,
            shares,
            weights=(*stacks, *biases),
            experts=EXPERTS,
            inner=self.inner,
            chosen=chosen,
            activation=ACTIVATIONS.index(self.activation),
            alpha=1.5,
            limit=0.75,
        )
        return run_plan(builder, y, **options)

    def alone(self, builder: Any, run_plan: Any, expert: int) -> Float32:
        """Return all rows through linears of the expert's own."""
        x, _ = self._operands(builder)

        def linear(name: str, value: int) -> int:
            matrix, shape = self.matrices[name][expert], self.shapes[name]
            weight = builder.packed(matrix, self.fmt, *shape, self.activations)
            biases = self.biases[name]
            bias = -1 if biases is None else builder.raw(biases[expert])
            made: int = builder.op(
                "linear", value, width=self.shapes[name][0], weights=(weight, bias)
            )
            return made

        gate, up = linear("gate", x), linear("up", x)
        gated = builder.op("mul", builder.op(self.activation, gate), up)
        runner = run_plan(builder, linear("down", gated), isa="scalar")
        return np.asarray(runner.logits(range(len(self.x))))


def fma(a: Float32, b: Float32, c: Float32) -> Float32:
    """a * b + c, rounded once."""
    exact = [
        Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        for x, y, z in zip(a, b, c, strict=True)
    ]
    return np.array([rounded(value) for value in exact], np.float32)


def rounded(value: Fraction) -> np.float32:
    """The nearest float32; a tie cannot be told from the float64 in between, so look at both."""
    near = np.float32(float(value))
    candidates = [
        near,
        np.nextafter(near, np.float32(-np.inf)),
        np.nextafter(near, np.float32(np.inf)),
    ]
    return min(
        candidates, key=lambda c: (abs(Fraction(float(c)) - value), int(c.view(np.uint32)) & 1)
    )


@pytest.mark.parametrize(
    ("fmt", "biased", "activation", "activations"),
    [
        *((fmt, False, "silu", "token") for fmt in FORMATS),
        ("i4g32", True, "gelu", "token"),
        ("f16", True, "silu", "token"),
        *((fmt, False, "silu", "group") for fmt in ("i4g32", "e2m1g32", "u4g32k", "i6g16k", "i8")),
    ],
)
def test_experts_are_linears_of_their_own(
    run_plan: Any,
    plan_builder: Any,
    fmt: str,
    biased: bool,
    activation: str,
    activations: Activations,
) -> None:
    case = Case(fmt, biased, activation, rows=9, activations=activations)
    expected = np.zeros_like(case.x)
    for expert in range(EXPERTS):
        made = case.alone(plan_builder(), run_plan, expert)
        for row in case.shares[:, expert].nonzero()[0]:
            share = np.full(case.width, case.shares[row, expert])
            expected[row] = fma(share, made[row], expected[row])
    rows = list(range(len(case.x)))
    for isa in isas():
        for threads in (1, 3):
            runner = case.run(plan_builder(), run_plan, isa=isa, threads=threads)
            assert_same_bits(runner.logits(rows), expected)
            for row in (4, 0):
                assert_same_bits(runner.logits([row]), expected[[row]])


def test_rows_do_not_depend_on_those_beside_them(run_plan: Any, plan_builder: Any) -> None:
    case = Case("i4g32", False, "silu", rows=300)
    rows = list(range(300))
    expected = case.run(plan_builder(context=512), run_plan, isa="scalar").logits(rows)
    for isa in isas():
        for threads in (1, 2):
            runner = case.run(plan_builder(context=512), run_plan, isa=isa, threads=threads)
            assert_same_bits(runner.logits(rows), expected)
            some = [*range(250, 290), 3, 3, *range(40)]
            assert_same_bits(runner.logits(some), expected[some])
            assert_same_bits(runner.logits([7, 8]), expected[[7, 8]])


def test_only_the_first_shares_count(run_plan: Any, plan_builder: Any) -> None:
    """A plan may give more shares than it says, which is no reason to leave one's memory."""
    case = Case("i8", False, "silu")
    rows = list(range(ROWS))
    fewer = case.run(plan_builder(), run_plan, chosen=2).logits(rows)
    for row in case.shares:
        row[row.nonzero()[0][2:]] = 0.0
    assert_same_bits(fewer, case.run(plan_builder(), run_plan, chosen=3).logits(rows))


def test_no_share_at_all(run_plan: Any, plan_builder: Any) -> None:
    case = Case("i4g32", False, "silu")
    case.shares[:] = 0.0
    for rows in (list(range(ROWS)), [2]):
        got = case.run(plan_builder(), run_plan, threads=2).logits(rows)
        assert not got.any()


def test_gate_and_up_of_different_formats(run_plan: Any, plan_builder: Any) -> None:
    builder = plan_builder()
    rng = np.random.default_rng(0)
    both = builder.activations(np.zeros((1, 96), np.float32))
    x = builder.op("split", both, width=[64, 32])
    stacks = [
        builder.stack(
            np.concatenate([random_packed(fmt, n, k, rng) for _ in range(32)]), fmt, (32, n, k)
        )
        for fmt, n, k in (("i4g32", 32, 64), ("i8", 32, 64), ("i8", 64, 32))
    ]
    weights = (*stacks, -1, -1, -1)
    sizes = {"experts": 32, "inner": 32, "chosen": 2, "activation": 0, "alpha": 0.0, "limit": 0.0}
    y = builder.op("experts", x, x + 1, weights=weights, **sizes)
    with pytest.raises(NativeError, match="gate and up are of different formats"):
        run_plan(builder, y)


def test_clamped_gates(run_plan: Any, plan_builder: Any) -> None:
    case = Case("f32", True, "clamped", rows=9)
    rows = list(range(9))
    got = case.run(plan_builder(), run_plan, isa="scalar").logits(rows)
    form = WEIGHT_FORMATS["f32"]
    stacks = {
        name: np.stack([unpack_floats(data, form, *case.shapes[name]) for data in parts])
        for name, parts in case.matrices.items()
    }
    expected = np.zeros(case.x.shape)
    for row, expert in zip(*case.shares.nonzero(), strict=True):
        gate, up = (
            stacks[name][expert].astype(np.float64) @ case.x[row] + case.biases[name][expert]
            for name in ("gate", "up")
        )
        gate, up = np.minimum(gate, 0.75), np.clip(up, -0.75, 0.75)
        made = stacks["down"][expert] @ (gate / (1 + np.exp(-1.5 * gate)) * (up + 1))
        expected[row] += case.shares[row, expert] * (made + case.biases["down"][expert])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    for isa in isas():
        for threads in (1, 2):
            again = case.run(plan_builder(), run_plan, isa=isa, threads=threads)
            assert_same_bits(again.logits(rows), got)
    for fmt in ("i4g32", "i8"):  # whose kernels have activations of their own
        case = Case(fmt, True, "clamped", rows=9)
        first = case.run(plan_builder(), run_plan, isa="scalar").logits(rows)
        for isa in isas():
            assert_same_bits(case.run(plan_builder(), run_plan, isa=isa).logits(rows), first)
