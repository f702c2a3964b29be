"""What a step costs, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_llm.program.cost import decode_bytes, kv_bytes, kv_row_bytes, weight_bytes


@pytest.mark.parametrize(("dtype", "row"), [("f32", 320), ("f16", 160), ("i8", 84)])
def test_a_cache_row_and_its_scale(dtype: str, row: int) -> None:
    assert kv_row_bytes(80, dtype) == row


@pytest.mark.parametrize(("dtype", "row"), [("f32", 64), ("f16", 32), ("i8", 20)])
def test_keys_and_values_that_a_token_reads(parts: Any, dtype: str, row: int) -> None:
    plan = replace(parts.plan, states=(replace(parts.plan.states[0], dtype=dtype),))
    position = 2 * 2 * row  # keys and values of two heads of 16
    assert kv_bytes(plan, 0) == position
    assert kv_bytes(plan, 99) == 100 * position
    assert decode_bytes(plan, 99) == weight_bytes(plan) + 100 * position
