"""Plans with a method of hidden states: what it must share with the language model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from plans import with_embed

from edge_llm.errors import ProgramError
from edge_llm.program.check import check_plan
from edge_llm.program.hidden import hidden_tail
from edge_llm.program.plan import matrix
from edge_llm.program.serialize import plan_from_text, plan_to_text


def test_it_is_read_back_as_it_was_written(parts: Any) -> None:
    plan = with_embed(parts.plan)
    check_plan(plan)
    assert plan_from_text(plan_to_text(plan)) == plan


def test_its_own_part_is_put_behind_the_language_model(parts: Any) -> None:
    plan = with_embed(parts.plan)
    tail = hidden_tail(plan)
    assert tail is not None
    assert tail.output == len(plan.values)
    assert tail.values == (matrix("T", 64),)
    (half,) = tail.instructions
    select = next(op for op in plan.instructions if op.op == "select_rows")
    assert half.inputs == select.inputs[:1]


def test_no_method_has_no_tail(parts: Any) -> None:
    assert hidden_tail(parts.plan) is None


def test_other_work_for_all_tokens_is_refused(parts: Any) -> None:
    method = with_embed(parts.plan).methods["embed"]
    changed = tuple(
        replace(op, attributes=op.attributes | {"eps": 0.5}) if op.op == "rms_norm" else op
        for op in method.instructions
    )
    with pytest.raises(ProgramError, match=r"method embed, instruction 1 \(rms_norm\)"):
        check_plan(with_embed(parts.plan, instructions=changed))


def test_its_output_has_wanted_rows(parts: Any) -> None:
    with pytest.raises(ProgramError, match=r"expected f32\[R, width\]"):
        check_plan(with_embed(parts.plan, outputs=(4,)))


def test_it_is_nothing_without_a_language_model(parts: Any) -> None:
    plan = with_embed(parts.plan)
    alone = replace(plan, methods={"embed": plan.methods["embed"]})
    with pytest.raises(ProgramError, match="one of kind causal_lm"):
        check_plan(alone)
