"""The cost of a step, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_llm.program.cost import (
    context_bytes,
    decode_bytes,
    instruction_cost,
    kv_bytes,
    kv_row_bytes,
    position_bytes,
    prefill_operations,
    token_bytes,
    weight_bytes,
)
from edge_llm.program.plan import Instruction, State


@pytest.mark.parametrize(("dtype", "row"), [("f32", 320), ("f16", 160), ("i8", 84)])
def test_a_cache_row_and_its_scale(dtype: str, row: int) -> None:
    assert kv_row_bytes(80, dtype) == row


@pytest.mark.parametrize(("dtype", "row"), [("f32", 64), ("f16", 32), ("i8", 20)])
def test_keys_and_values_that_a_token_reads(parts: Any, dtype: str, row: int) -> None:
    plan = parts.plan
    position = 2 * 2 * row  # keys and values of two heads of 16
    assert kv_bytes(plan, 0, dtype) == position
    assert kv_bytes(plan, 99, dtype) == 100 * position
    assert decode_bytes(plan, 99, dtype) == weight_bytes(plan) + 100 * position


@pytest.mark.parametrize("depth", [0, 9])
def test_costs_of_instructions_add_up_to_the_step(parts: Any, depth: int) -> None:
    plan = parts.plan
    costs = [
        instruction_cost(plan, instruction, tokens=1, kv_dtype="f16", depth=depth)
        for instruction in plan.instructions
        if instruction.op not in ("embedding", "rope")  # whose rows the sums of steps leave out
    ]
    written = kv_bytes(plan, 0, "f16")
    assert sum(cost.bytes for cost in costs) == decode_bytes(plan, depth, "f16") + written
    assert sum(cost.operations for cost in costs) == prefill_operations(plan, 1, depth)


def test_attention_reads_once_what_any_token_of_the_step_sees(parts: Any) -> None:
    plan = parts.plan
    (attention,) = (i for i in plan.instructions if i.op == "attention")
    position = kv_bytes(plan, 0, "f16")
    for window, seen in ((0, 12), (3, 3 + 4)):
        plan = replace(plan, states=(replace(plan.states[0], window=window),))
        cost = instruction_cost(plan, attention, tokens=5, kv_dtype="f16", depth=7)
        assert cost.bytes == (seen + 5) * position


@pytest.mark.parametrize(("window", "causal", "both"), [(0, 15, 25), (3, 12, 19)])
def test_what_a_text_sees_in_one_step(parts: Any, window: int, causal: int, both: int) -> None:
    plan = replace(parts.plan, states=(replace(parts.plan.states[0], window=window),))
    (attention,) = (i for i in plan.instructions if i.op == "attention")
    for bidirectional, seen in ((0, causal), (1, both)):
        attributes = {**attention.attributes, "bidirectional": bidirectional}
        step = replace(attention, attributes=attributes)
        each = 4 * int(attributes["heads"]) * int(attributes["head_dim"])
        assert instruction_cost(plan, step, tokens=5, kv_dtype="f16").operations == each * seen


def test_what_a_context_holds(parts: Any) -> None:
    """A window and a step, in whole blocks that may begin anywhere; rows are float32, whatever the
    type of keys and values."""
    states = (State.kv("a", 2, 16, 16), State.kv("b", 2, 16, 16, 100), State.rows("c", 64, 3))
    plan = replace(parts.plan, context=4096, states=states)
    kv = 2 * 2 * 32
    assert position_bytes(states[2], "f16") == position_bytes(states[2], "f32") == 256
    assert token_bytes(plan, "f16") == 2 * kv
    assert context_bytes(plan, "f16", 256) == kv * (4096 + 7 * 64) + 256 * 6 * 64
    assert context_bytes(replace(plan, context=70), "f16", 256) == (2 * kv + 256) * 70


def test_a_convolution(parts: Any) -> None:
    step = Instruction("causal_conv", (6, 1, 2), (6,), (1,), 0, {"taps": 3})
    plan = replace(parts.plan, states=(State.rows("c", 64, 3),))
    cost = instruction_cost(plan, step, tokens=5, kv_dtype="i8", depth=7)
    weight = 4 * plan.weights[1].shape[0]
    assert cost.bytes == weight + 256 * (5 + 3 + 4)
    assert cost.operations == 5 * 2 * 3 * 64
