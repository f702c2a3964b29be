"""Predictions follow the formulas that the module states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_llm.program.cost import (
    attention_operations,
    kv_bytes,
    prefill_operations,
    weight_bytes,
)
from edge_llm.program.predict import (
    EFFICIENCIES,
    Rates,
    decode_seconds,
    measured_rates,
    prefill_seconds,
)

USE = EFFICIENCIES["avx2"]
STEP_TOKENS = 100


def test_decode_waits_for_memory(parts: Any) -> None:
    rates = Rates("avx2", bytes_per_second=1e9, int8_per_second=1e15, float_per_second=1e15)
    moved = weight_bytes(parts.plan) + kv_bytes(parts.plan, 99, "f16")
    expected = moved / (USE.read * 1e9) + USE.layer * len(parts.plan.states)
    assert decode_seconds(parts.plan, rates, 99, "f16") == pytest.approx(expected)


def test_decode_with_slow_floats_waits_for_attention(parts: Any) -> None:
    rates = Rates("avx2", bytes_per_second=1e15, int8_per_second=1e15, float_per_second=1e6)
    operations = attention_operations(parts.plan, 1, 99)
    expected = operations / (USE.attend * 1e6) + USE.layer * len(parts.plan.states)
    assert decode_seconds(parts.plan, rates, 99, "f16") == pytest.approx(expected)


@pytest.mark.parametrize("tokens", [1, STEP_TOKENS, STEP_TOKENS + 1])
def test_prefill_waits_for_arithmetic_or_for_the_weights(parts: Any, tokens: int) -> None:
    plan = replace(parts.plan, context=4096)
    attention = attention_operations(plan, tokens)
    linear = prefill_operations(plan, tokens) - attention
    steps = 2 if tokens > STEP_TOKENS else 1
    beside = attention / (USE.attend * 1e9) + steps * USE.layer * len(plan.states)
    slow = Rates("avx2", bytes_per_second=1e15, int8_per_second=1e9, float_per_second=1e9)
    expected = linear / (USE.multiply * 1e9) + beside
    assert prefill_seconds(plan, slow, tokens, step_tokens=STEP_TOKENS) == pytest.approx(expected)
    far = Rates("avx2", bytes_per_second=1e3, int8_per_second=1e9, float_per_second=1e9)
    expected = steps * weight_bytes(plan) / (USE.read * 1e3) + beside
    assert prefill_seconds(plan, far, tokens, step_tokens=STEP_TOKENS) == pytest.approx(expected)


def test_an_instruction_set_without_figures_has_those_of_avx2() -> None:
    rates = measured_rates("new", 1e9, 1e9)
    assert rates.efficiency == USE
    assert rates.float_per_second == measured_rates("avx2", 1e9, 1e9).float_per_second
