"""The state-space dual over a fold: against float64 for all kinds of steps, and its promise: a
token's bits depend on its prefix alone, whatever was computed at once, before, or in vain. How
pages are folded, copied and looked at it shares with the delta rule, whose tests are more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
from edge_llm.program.cost import instruction_cost, page_bytes
from edge_llm.program.plan import Plan
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
        return [keys, keys, self.heads * self.v_dim, self.heads]


# A head of keys has one part, several, or several of which the last is smaller.
SHAPES = [Shape(1, 12, 32, 16), Shape(2, 14, 24, 20), Shape(1, 1, 7, 64), Shape(3, 6, 128, 8)]
STEPS = ("typical", "huge", "near 0", "resets")


def rates(shape: Shape) -> tuple[Float32, Float32]:
    """Return the logarithms of how fast heads forget, and what they let through."""
    skip = np.random.default_rng(3).standard_normal(shape.heads)
    return np.linspace(-1, 3, shape.heads, dtype=np.float32), skip.astype(np.float32)


def activations(shape: Shape, steps: str = "typical", tokens: int = TOKENS) -> Float32:
    """Return rows [q | k | v | step]."""
    rng = np.random.default_rng(shape.heads)
    q, k, v, step = (rng.standard_normal((tokens, width)) for width in shape.widths)
    step = {
        "typical": np.log1p(np.exp(step - 3)),
        "huge": 1e3 * np.exp(step),
        "near 0": 1e-6 * np.exp(step),
        "resets": np.where(step > 1.3, 80.0, 1e-4 * np.exp(step)),
    }[steps]
    return np.concatenate([part.astype(np.float32) for part in (q, k, v, step)], axis=1)


def reference(shape: Shape, x: Float32) -> NDArray[np.float64]:
    """The recurrence in float64."""
    q, k, v, step = np.split(x.astype(np.float64), np.cumsum(shape.widths)[:-1], axis=1)
    group = shape.heads // shape.key_heads
    q, k = (
        np.repeat(part.reshape(len(x), shape.key_heads, shape.k_dim), group, axis=1)
        for part in (q, k)
    )
    v = v.reshape(len(x), shape.heads, shape.v_dim)
    rate, skip = (part.astype(np.float64) for part in rates(shape))
    decay = np.exp(-np.exp(rate) * step)
    matrix = np.zeros((shape.heads, shape.k_dim, shape.v_dim))
    out = np.zeros_like(v)
    for t in range(len(x)):
        update = step[t][:, None] * v[t]
        matrix = matrix * decay[t][:, None, None] + k[t][:, :, None] * update[:, None, :]
        out[t] = np.einsum("hkv,hk->hv", matrix, q[t]) + skip[:, None] * v[t]
    return out.reshape(len(x), -1)


def plan_of(plan_builder: Any, shape: Shape, x: Float32) -> tuple[Any, Plan]:
    builder = plan_builder()
    q = builder.op("split", builder.activations(x), width=shape.widths)
    rate, skip = rates(shape)
    y = builder.state_space(q, q + 1, q + 2, q + 3, rate=rate, skip=skip, **asdict(shape))
    return builder, builder.plan(y)


def starter(run_plan: Any, plan_builder: Any, shape: Shape) -> Start:
    def start(x: Float32, **options: Any) -> Any:
        return run_plan(*plan_of(plan_builder, shape, x), **options)

    return start


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_recurrence_in_every_regime(
    run_plan: Any, plan_builder: Any, shape: Shape, steps: str
) -> None:
    x = activations(shape, steps)
    start = starter(run_plan, plan_builder, shape)
    check_recurrence(start, x, reference(shape, x), 1e-5)


def test_neighbours_change_nothing(run_plan: Any, plan_builder: Any) -> None:
    shape = Shape(1, 9, 24, 16)
    check_neighbours(starter(run_plan, plan_builder, shape), activations(shape))


@pytest.mark.parametrize("kept", [1, 15, 16, 17, 48, 63, 64, 65, 80, 127, 128, 190])
def test_rows_that_were_computed_in_vain_leave_nothing(
    run_plan: Any, plan_builder: Any, kept: int
) -> None:
    shape = Shape(1, 6, 24, 16)
    check_rewinds(starter(run_plan, plan_builder, shape), activations(shape), kept)


@pytest.mark.parametrize("shared", [1, 16, 40, 63, 64, 65, 100, 128])
def test_a_copied_page_goes_on_anywhere(run_plan: Any, plan_builder: Any, shared: int) -> None:
    shape = Shape(1, 6, 24, 16)
    check_copied_page(starter(run_plan, plan_builder, shape), activations(shape), shared)


def test_what_lay_in_a_page_is_never_read(run_plan: Any, plan_builder: Any) -> None:
    shape = Shape(1, 7, 24, 16)
    check_used_pages(starter(run_plan, plan_builder, shape), activations(shape))


def test_bytes_and_operations(plan_builder: Any) -> None:
    shape = Shape(1, 12, 32, 16)
    _, plan = plan_of(plan_builder, shape, activations(shape, tokens=16))
    (group,) = groups(plan, "f16")
    matrices = 2 * 12 * 32 * 16
    rows = 64 * (3 * 32 + 12 * 16 + 3 * 16)  # three copies of keys; decays are padded to 16
    assert group.window == 2
    assert group.block_bytes == 4 * (matrices + rows + 3 * 16)
    assert 0.8 < page_bytes(plan.states[0], "f16", 64) / group.block_bytes < 1
    step = next(step for step in plan.instructions if step.op == "state_space")
    cost = instruction_cost(plan, step, tokens=3, kv_dtype="f16")
    assert cost.operations == 3 * 4 * 12 * 32 * 16
    row = 3 * 32 + 12 * 16 + 12
    assert cost.bytes == 4 * (12 * 32 * 16 + 3 * row + 2 * 12)


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_the_oracle_agrees(plan_builder: Any, open_oracle: Any, shape: Shape) -> None:
    x = activations(shape)
    check_oracle(open_oracle, *plan_of(plan_builder, shape, x), reference(shape, x))


@pytest.mark.parametrize("limits", [(0.0, 2.0**127), (0.01, 2.5)])
def test_time_steps(run_plan: Any, plan_builder: Any, limits: tuple[float, float]) -> None:
    """From softplus of very small to very large numbers; no number stays none."""
    low, high = limits
    x = np.linspace(-110, 70, 250, dtype=np.float32)[:, None] * np.ones((1, 21), np.float32)
    bias = np.linspace(-3, 3, 21, dtype=np.float32)
    expected = np.logaddexp(0.0, (x + bias).astype(np.float64)).clip(low, high)
    x[7, 3], expected[7, 3] = np.nan, np.nan
    results = []
    for isa in isas():
        builder = plan_builder()
        value, weights = builder.activations(x), (builder.raw(bias),)
        y = builder.op("time_step", value, weights=weights, low=low, high=high)
        results.append(run_plan(builder, y, isa=isa, threads=2).logits(range(250)))
        assert_same_bits(results[-1], results[0])
    np.testing.assert_allclose(results[0], expected, rtol=3e-7, atol=1e-38)


@pytest.mark.parametrize("size", [1, 7, 16, 40])
def test_norms_of_groups(run_plan: Any, plan_builder: Any, size: int) -> None:
    """Those of the runs with the parts of the weight, as `rms_norm` gives them."""
    rng = np.random.default_rng(size)
    x = rng.standard_normal((20, 3 * size)).astype(np.float32)
    weight = rng.standard_normal(3 * size).astype(np.float32)
    attributes = {"size": size, "eps": 1e-3}
    for isa in isas():
        builder = plan_builder()
        value = builder.activations(x)
        y = builder.op("grouped_norm", value, weights=(builder.raw(weight),), **attributes)
        parts = builder.op("split", value, width=[size] * 3)
        alone = [
            builder.op("rms_norm", parts + i, weights=(builder.raw(part),), **attributes)
            for i, part in enumerate(np.split(weight, 3))
        ]
        runner = run_plan(builder, y, isa=isa, threads=2, trace=True)
        runner.logits(range(20))
        whole = runner.value(y)
        assert_same_bits(whole, np.concatenate([runner.value(part) for part in alone], axis=1))
    mean = (x.reshape(20, 3, size) ** 2).mean(-1, keepdims=True)
    expected = (x.reshape(20, 3, size) / np.sqrt(mean + 1e-3)).reshape(20, -1) * weight
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-6)


def _change(plan: Plan, **changes: Any) -> Plan:
    index = next(i for i, step in enumerate(plan.instructions) if step.op == "state_space")
    instructions = list(plan.instructions)
    instructions[index] = replace(instructions[index], **changes)
    changed: Plan = replace_plan(plan, instructions=tuple(instructions))
    return changed


def _attributes(plan: Plan, **changes: float) -> Plan:
    step = next(step for step in plan.instructions if step.op == "state_space")
    return _change(plan, attributes=step.attributes | changes)


def _inputs(plan: Plan, *order: int) -> Plan:
    step = next(step for step in plan.instructions if step.op == "state_space")
    return _change(plan, inputs=tuple(step.inputs[place] for place in order))


BAD_PLANS: dict[str, Callable[[Plan], Plan]] = {
    "no state": lambda p: _change(p, state=-1),
    "another size": lambda p: _attributes(p, k_dim=25),
    "heads that no key head divides": lambda p: _attributes(p, key_heads=4),
    "no skip": lambda p: _change(
        p, weights=next(s for s in p.instructions if s.op == "state_space").weights[:1]
    ),
    "steps of another width": lambda p: _inputs(p, 0, 1, 2, 2, 4, 5),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_plan_that_would_corrupt_memory_is_refused(
    run_plan: Any, plan_builder: Any, name: str
) -> None:
    shape = Shape(1, 6, 24, 16)
    builder, plan = plan_of(plan_builder, shape, activations(shape, tokens=96))
    check_plan(plan)
    with pytest.raises(NativeError):
        run_plan(builder, BAD_PLANS[name](plan))
    with pytest.raises(ProgramError):
        check_plan(BAD_PLANS[name](plan))
