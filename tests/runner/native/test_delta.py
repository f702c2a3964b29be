"""The gated delta rule over a fold: against float64 for all kinds of gates, and its promise: a
token's bits depend on its prefix alone, whatever was computed at once, before, or in vain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from fold_checks import (
    TOKENS,
    Float32,
    Start,
    check_copied_page,
    check_neighbours,
    check_oracle,
    check_recurrence,
    check_rewinds,
    check_used_pages,
)
from numpy.typing import NDArray
from plans import replace as replace_plan

from edge_llm.errors import NativeError, ProgramError
from edge_llm.program.check import check_plan
from edge_llm.program.cost import page_bytes
from edge_llm.program.plan import Plan, State
from edge_llm.runner.backends.native import groups


@dataclass(frozen=True)
class Shape:
    key_heads: int
    heads: int
    k_dim: int
    v_dim: int

    @property
    def widths(self) -> list[int]:
        keys = self.key_heads * self.k_dim
        return [keys, keys, self.heads * self.v_dim, self.heads, self.heads]


SHAPES = [Shape(2, 2, 32, 32), Shape(2, 6, 24, 16), Shape(3, 3, 7, 20), Shape(1, 2, 128, 48)]
GATES = ("typical", "near 1", "near 0", "resets", "equal keys")


def activations(shape: Shape, gates: str = "typical", tokens: int = TOKENS) -> Float32:
    """Return rows [q | k | v | decay | strength]."""
    rng = np.random.default_rng(shape.heads)
    q, k, v, decay, strength = (rng.standard_normal((tokens, width)) for width in shape.widths)
    strength = 1 / (1 + np.exp(-2 * strength))
    log_decay = {
        "typical": -8 * np.log1p(np.exp(decay - 4)),
        "near 1": -1e-5 * np.abs(decay),
        "near 0": -16 * np.log1p(np.exp(2 * decay + 5)),
        "resets": np.where(decay > 1.3, -60.0, -1e-3 * np.abs(decay)),
        "equal keys": np.full_like(decay, -1e-4),
    }[gates]
    if gates == "equal keys":
        k = k[:1] + 0.05 * k
        strength = np.full_like(strength, 0.999)
    parts = (q, k, v, np.exp(log_decay), strength)
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def split(shape: Shape, x: Float32) -> list[NDArray[np.float64]]:
    return np.split(x.astype(np.float64), np.cumsum(shape.widths)[:-1], axis=1)


def reference(shape: Shape, x: Float32) -> NDArray[np.float64]:
    """The recurrence in float64."""
    q, k, v, decay, strength = split(shape, x)
    group = shape.heads // shape.key_heads
    q, k = (part.reshape(len(x), shape.key_heads, shape.k_dim) for part in (q, k))
    q, k = (
        np.repeat(part / np.sqrt((part**2).sum(-1, keepdims=True) + 1e-6), group, axis=1)
        for part in (q, k)
    )
    v = v.reshape(len(x), shape.heads, shape.v_dim)
    matrix = np.zeros((shape.heads, shape.k_dim, shape.v_dim))
    out = np.zeros_like(v)
    for t in range(len(x)):
        matrix = matrix * decay[t][:, None, None]
        predicted = np.einsum("hkv,hk->hv", matrix, k[t])
        update = strength[t][:, None] * (v[t] - predicted)
        matrix = matrix + k[t][:, :, None] * update[:, None, :]
        out[t] = np.einsum("hkv,hk->hv", matrix, q[t] * shape.k_dim**-0.5)
    return out.reshape(len(x), -1)


def plan_of(plan_builder: Any, shape: Shape, x: Float32) -> tuple[Any, Plan]:
    builder = plan_builder()
    q = builder.op("split", builder.activations(x), width=[*shape.widths[:3], 2 * shape.heads])
    decay = builder.op("split", q + 3, width=shape.widths[3:])
    sizes = {name: getattr(shape, name) for name in ("key_heads", "heads", "k_dim", "v_dim")}
    return builder, builder.plan(builder.gated_delta(q, q + 1, q + 2, decay, decay + 1, **sizes))


def starter(run_plan: Any, plan_builder: Any, shape: Shape) -> Start:
    def start(x: Float32, **options: Any) -> Any:
        return run_plan(*plan_of(plan_builder, shape, x), **options)

    return start


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_recurrence_in_every_regime(
    run_plan: Any, plan_builder: Any, shape: Shape, gates: str
) -> None:
    x = activations(shape, gates)
    start = starter(run_plan, plan_builder, shape)
    check_recurrence(start, x, reference(shape, x), 3e-5)


def test_neighbours_change_nothing(run_plan: Any, plan_builder: Any) -> None:
    shape = Shape(2, 4, 24, 16)
    check_neighbours(starter(run_plan, plan_builder, shape), activations(shape))


@pytest.mark.parametrize("kept", [1, 15, 16, 17, 47, 48, 63, 64, 65, 79, 80, 127, 128, 190])
def test_rows_that_were_computed_in_vain_leave_nothing(
    run_plan: Any, plan_builder: Any, kept: int
) -> None:
    shape = Shape(2, 4, 24, 16)
    check_rewinds(starter(run_plan, plan_builder, shape), activations(shape), kept)


@pytest.mark.parametrize("shared", [1, 16, 40, 63, 64, 65, 100, 128])
def test_a_copied_page_goes_on_anywhere(run_plan: Any, plan_builder: Any, shared: int) -> None:
    shape = Shape(2, 4, 24, 16)
    check_copied_page(starter(run_plan, plan_builder, shape), activations(shape), shared)


def test_what_lay_in_a_page_is_never_read(run_plan: Any, plan_builder: Any) -> None:
    shape = Shape(1, 2, 24, 16)
    check_used_pages(starter(run_plan, plan_builder, shape), activations(shape))


def test_a_page_of_another_past_is_no_danger(run_plan: Any, plan_builder: Any) -> None:
    """A batch that begins inside a page that nobody wrote gives some numbers."""
    shape = Shape(1, 2, 24, 16)
    x = activations(shape)
    runner = starter(run_plan, plan_builder, shape)(x)
    x[:] = np.float32(np.frombuffer(np.int32(77).tobytes(), np.float32)[0])
    runner.blocks[0], runner.lengths[0] = [0, 1], 90
    runner.logits(range(20))
    runner.lengths[0] = 37
    runner.logits(range(60))


def test_the_bytes_of_a_page(plan_builder: Any) -> None:
    shape = Shape(2, 4, 32, 16)
    _, plan = plan_of(plan_builder, shape, activations(shape, tokens=16))
    (group,) = groups(plan, "f16")
    matrices = 2 * 4 * 32 * 16
    rows = 64 * (2 * 32 + 4 * 16 + 2 * 16)  # decays of a key head's values are padded to 16
    assert group.window == 2
    assert group.block_bytes == 4 * (matrices + rows + 2 * 16)
    assert 0.8 < page_bytes(plan.states[0], "f16", 64) / group.block_bytes < 1


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_the_oracle_agrees(plan_builder: Any, open_oracle: Any, shape: Shape) -> None:
    x = activations(shape)
    check_oracle(open_oracle, *plan_of(plan_builder, shape, x), reference(shape, x))


def test_decays(run_plan: Any, plan_builder: Any) -> None:
    """From softplus of very small to very large numbers, for slow heads and fast ones."""
    x = np.linspace(-110, 70, 250, dtype=np.float32)[:, None] * np.ones((1, 21), np.float32)
    rate = np.linspace(-6, 3, 21, dtype=np.float32)
    bias = np.linspace(-3, 3, 21, dtype=np.float32)
    softplus = np.logaddexp(0.0, x.astype(np.float64) + bias)
    expected = np.exp(-np.exp(rate.astype(np.float64)) * softplus)
    results = []
    for isa in isas():
        builder = plan_builder()
        weights = (builder.raw(rate), builder.raw(bias))
        y = builder.op("decay", builder.activations(x), weights=weights)
        results.append(run_plan(builder, y, isa=isa, threads=2).logits(range(250)))
        assert_same_bits(results[-1], results[0])
    assert np.abs(results[0] - expected).max() < 3e-7
    small = expected > 0.999  # what is forgotten of these counts over many tokens
    assert np.abs(results[0] - expected)[small].max() < 1.2e-7


def test_slices_of_heads(run_plan: Any, plan_builder: Any) -> None:
    x = np.arange(40 * 30, dtype=np.float32).reshape(40, 30)
    for threads in (1, 2):
        builder = plan_builder()
        first = builder.op("split_heads", builder.activations(x), width=[9, 6, 15], heads=3)
        runs = x.reshape(40, 3, 10)
        runner = run_plan(builder, first, threads=threads, trace=True)
        runner.logits(range(40))
        for number, (begin, end) in enumerate(((0, 3), (3, 5), (5, 10))):
            assert_same_bits(runner.value(first + number), runs[:, :, begin:end].reshape(40, -1))


def _change(plan: Plan, op: str, **changes: Any) -> Plan:
    index = next(i for i, step in enumerate(plan.instructions) if step.op == op)
    instructions = list(plan.instructions)
    instructions[index] = replace(instructions[index], **changes)
    changed: Plan = replace_plan(plan, instructions=tuple(instructions))
    return changed


def _attributes(plan: Plan, **changes: float) -> Plan:
    index = next(i for i, step in enumerate(plan.instructions) if step.op == "gated_delta")
    attributes = plan.instructions[index].attributes | changes
    return _change(plan, "gated_delta", attributes=attributes)


BAD_PLANS: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "no state": (lambda p: _change(p, "gated_delta", state=-1), "the state is missing"),
    "a state of another kind": (
        lambda p: replace(p, states=(State.kv("a", 4, 16, 16, 2),)),
        "the state is of another kind",
    ),
    "fewer heads": (
        lambda p: replace(p, states=(State.fold("a", 2, 2, 24, 16),)),
        "two sizes differ that should not",
    ),
    "fewer key heads": (
        lambda p: replace(p, states=(State.fold("a", 1, 4, 24, 16),)),
        "two sizes differ that should not",
    ),
    "narrow keys": (
        lambda p: replace(p, states=(State.fold("a", 2, 4, 23, 16),)),
        "two sizes differ that should not",
    ),
    "narrow values": (
        lambda p: replace(p, states=(State.fold("a", 2, 4, 24, 8),)),
        "two sizes differ that should not",
    ),
    "another window": (
        lambda p: replace(p, states=(replace(State.fold("a", 2, 4, 24, 16), window=1),)),
        "two sizes differ that should not",
    ),
    "wide heads": (lambda p: _attributes(p, k_dim=257), "an attribute is out of range"),
    "uneven heads": (
        lambda p: replace(
            _attributes(p, key_heads=3, k_dim=16), states=(State.fold("a", 3, 4, 16, 16),)
        ),
        "state 0 has 4 heads, expected a multiple of its 3 key heads",
    ),
    "too large a state": (
        lambda p: replace(p, states=(State.fold("a", 2, 4, 257, 16),)),
        "the shape of state 0 is out of range",
    ),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_plan_that_would_corrupt_memory_is_refused(
    run_plan: Any, plan_builder: Any, name: str
) -> None:
    shape = Shape(2, 4, 24, 16)
    builder, plan = plan_of(plan_builder, shape, activations(shape, tokens=64))
    check_plan(plan)
    change, message = BAD_PLANS[name]
    with pytest.raises(NativeError, match=message):
        run_plan(builder, change(plan))
    with pytest.raises(ProgramError):
        check_plan(change(plan))


@pytest.mark.parametrize("widths", [[10, 20], [1, 29], [4, 26]])
def test_slices_that_are_not_of_heads_are_refused(
    run_plan: Any, plan_builder: Any, widths: list[int]
) -> None:
    builder = plan_builder()
    x = builder.activations(np.zeros((30, 30), np.float32))
    plan = builder.plan(builder.op("split_heads", x, width=widths, heads=3))
    with pytest.raises(NativeError, match="an output's width is no multiple of the heads"):
        run_plan(builder, plan)
    with pytest.raises(ProgramError, match="the outputs' widths are no multiples of heads 3"):
        check_plan(plan)
