"""The cost of a step, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_llm.program.cost import (
    decode_bytes,
    instruction_cost,
    kv_bytes,
    kv_row_bytes,
    prefill_operations,
    weight_bytes,
)


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
