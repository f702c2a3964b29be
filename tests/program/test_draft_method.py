"""Plans with a draft method: what it may read and keep, and the plan without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plans import with_embed

from edge_llm.errors import NativeError, ProgramError
from edge_llm.program.check import check_plan
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.hidden import draft_part
from edge_llm.program.pack import pack_float
from edge_llm.program.plan import (
    HIDDEN,
    INPUTS,
    Instruction,
    Method,
    Plan,
    State,
    Value,
    Weight,
    matrix,
)
from edge_llm.program.serialize import plan_from_text, plan_to_text
from edge_llm.runner.backends import torch as torch_backend
from edge_llm.runner.backends.native import load
from edge_llm.runner.executor import Batch, Limits, Segment


def with_draft(plan: Plan) -> Plan:
    """``plan`` with hidden states, and a method that halves those of the token before; its logits
    are made by the language model's head."""
    plan = with_embed(plan)
    model = plan.language_model
    head = next(op for op in reversed(model.instructions) if op.op == "linear")
    width = model.values[head.inputs[0]].width
    state = State.rows("draft", width, 2)
    before, half, chosen, logits = range(HIDDEN + 1, HIDDEN + 5)
    method = Method(
        "draft",
        (*model.inputs, HIDDEN),
        (
            *model.values[:HIDDEN],
            *[matrix("T", width)] * 3,
            matrix("R", width),
            matrix("R", plan.vocab),
        ),
        (
            Instruction("previous", (HIDDEN, 1, 2), (before,), (), len(plan.states)),
            Instruction("scale", (before,), (half,), attributes={"factor": 0.5}),
            Instruction("select_rows", (half, 3), (chosen,)),
            replace(head, inputs=(chosen,), outputs=(logits,)),
        ),
        (logits, half),
    )
    return replace(plan, states=(*plan.states, state), methods={**plan.methods, "draft": method})


def floats() -> tuple[Plan, dict[str, Any]]:
    """A model without layers, and its tensors."""
    rng, shapes = np.random.default_rng(0), {"table": (96, 64), "head": (96, 64)}
    tensors = {
        name: pack_float(rng.standard_normal(shape).astype(np.float32), WEIGHT_FORMATS["f32"])
        for name, shape in shapes.items()
    }
    plan = Plan.causal_lm(
        context=64,
        vocab=96,
        values=(*INPUTS, matrix("T", 64), matrix("R", 64), matrix("R", 96)),
        weights=tuple(Weight(n, n, WEIGHT_FORMATS["f32"], shape) for n, shape in shapes.items()),
        states=(),
        instructions=(
            Instruction("embedding", (0,), (4,), (0,)),
            Instruction("select_rows", (4, 3), (5,)),
            Instruction("linear", (5,), (6,), (1,)),
        ),
        output=6,
    )
    return plan, tensors


def changed(plan: Plan, **changes: Any) -> Plan:
    draft = replace(plan.methods["draft"], **changes)
    return replace(plan, methods={**plan.methods, "draft": draft})


def value(plan: Plan, hidden: Value) -> Plan:
    """``plan`` with other hidden states that its draft is given."""
    values = plan.methods["draft"].values
    return changed(plan, values=(*values[:HIDDEN], hidden, *values[HIDDEN + 1 :]))


def step(plan: Plan, number: int, **changes: Any) -> Plan:
    """``plan`` with another instruction ``number`` of its draft."""
    instructions = list(plan.methods["draft"].instructions)
    instructions[number] = replace(instructions[number], **changes)
    return changed(plan, instructions=tuple(instructions))


def test_it_is_read_back_as_it_was_written(parts: Any) -> None:
    plan = with_draft(parts.plan)
    check_plan(plan)
    assert plan_from_text(plan_to_text(plan)) == plan


def test_it_stands_behind_language_model_and_hidden_states(parts: Any) -> None:
    plan = with_draft(parts.plan)
    part = draft_part(plan)
    assert part is not None
    first = len(plan.values) + 1  # behind the value that `embed` computes beyond
    assert part.instructions[0].inputs[0] == part.hidden == first - 1
    assert part.instructions[0].outputs == (first,)
    assert (part.output, part.logits) == (first + 1, first + 3)


def test_the_plan_without_it_has_nothing_that_it_alone_needs(parts: Any) -> None:
    plan = with_embed(parts.plan)
    assert with_draft(parts.plan).without_draft == plan
    assert plan.without_draft == plan


REFUSED: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "no hidden states": (
        lambda p: replace(p, methods={n: m for n, m in p.methods.items() if n != "embed"}),
        "reads hidden states of 64 columns, the program gives none",
    ),
    "one output": (
        lambda p: changed(p, outputs=p.methods["draft"].outputs[:1]),
        "expected two computed values",
    ),
    "other hidden states": (
        lambda p: changed(p, outputs=(p.methods["draft"].outputs[0],) * 2),
        r"has hidden states .*, expected .* as it is given",
    ),
    "four inputs": (
        lambda p: changed(p, inputs=p.methods["draft"].inputs[:4]),
        "the first four must be the inputs",
    ),
    "an input that is no value": (
        lambda p: changed(p, values=p.methods["draft"].values[:HIDDEN], instructions=()),
        r"values\[4\]: expected f32\[T, width\], the hidden states",
    ),
    "hidden states of rank 3": (
        lambda p: value(p, Value(("T", 64, 1))),
        r"values\[4\]: expected f32\[T, width\], the hidden states",
    ),
    "hidden states that are read elsewhere": (
        lambda p: step(p, 1, inputs=(HIDDEN,)),
        "expected one instruction, and a previous, to read the hidden states",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_draft_is_refused(name: str, parts: Any) -> None:
    change, message = REFUSED[name]
    with pytest.raises(ProgramError, match=message):
        check_plan(change(with_draft(parts.plan)))


def test_a_state_of_another_method_is_refused(parts: Any) -> None:
    plan = with_draft(parts.plan)
    model = plan.language_model
    more = Instruction("previous", (4, 1, 2), (len(model.values),), (), len(plan.states) - 1)
    grown = replace(
        model,
        values=(*model.values, matrix("T", 64)),
        instructions=(*model.instructions, more),
    )
    with pytest.raises(ProgramError, match="state draft is another method's too"):
        check_plan(replace(plan, methods={**plan.methods, "causal_lm": grown}))


# Fields of the core's program, and what they are in place of what they should be.
CORE: dict[str, tuple[dict[str, Callable[[Any], int]], str]] = {
    "no such instruction": ({"draft": lambda p: 10**6}, "the draft is no instruction"),
    "no hidden states": ({"hidden": lambda p: -1}, "a draft needs hidden states"),
    "more of the program": (
        {"draft": lambda p: p.draft - 2},
        "a draft reads what it does not compute",
    ),
    "less of itself": (
        {"draft": lambda p: p.instruction_count - 2},
        "a draft reads what it does not compute",
    ),
    "logits of the language model": (
        {"draft_output": lambda p: p.output},
        "not a value that it computes",
    ),
    "no hidden states of its own": (
        {"draft_hidden": lambda p: 10**6},
        "not a value that it computes",
    ),
    "no draft, but its logits": (
        {"draft": lambda p: -1, "draft_output": lambda p: 10**6},
        "there is no draft, but what it gives",
    ),
    "no draft, but its hidden states": (
        {"draft": lambda p: -1, "draft_output": lambda p: -1, "draft_hidden": lambda p: 10**6},
        "there is no draft, but what it gives",
    ),
    "wide hidden states": (
        {"draft_hidden": lambda p: p.draft_output},
        r"hidden states are not \[T, width\]",
    ),
}


def test_what_a_later_layer_keeps_follows_from_the_layers_before() -> None:
    """In every step an attention is computed whole where another state follows from it."""
    model, tensors = floats()
    plan = with_draft(model)
    draft, first = plan.methods["draft"], len(plan.states)
    before, one, two, chosen, logits = range(HIDDEN + 1, HIDDEN + 6)
    sizes = {"heads": 4, "kv_heads": 4, "head_dim": 16, "scale": 0.25, "softcap": 0.0}
    sizes["bidirectional"] = 0
    previous, _, select, head = draft.instructions

    def attention(x: int, y: int, state: int) -> Instruction:
        return Instruction("attention", (x, x, x, 1, 2), (y,), (-1,), state, sizes)

    plan = changed(
        plan,
        values=(*draft.values[: HIDDEN + 2], matrix("T", 64), *draft.values[HIDDEN + 2 :]),
        instructions=(
            previous,
            attention(before, one, first),
            attention(one, two, first + 1),
            replace(select, inputs=(two, 3), outputs=(chosen,)),
            replace(head, inputs=(chosen,), outputs=(logits,)),
        ),
        outputs=(logits, two),
    )
    kept = tuple(State.kv(name, 4, 16, 16) for name in ("one", "two"))
    plan = replace(plan, states=(*plan.states, *kept))
    check_plan(plan)
    limits = Limits(
        max_tokens=8, max_rows=8, max_sequences=1, blocks=(1,) * len(plan.groups), kv_dtype="f32"
    )
    tables = (np.zeros((1, 1), np.int32),) * len(plan.groups)
    core, oracle = (
        load(plan, tensors, sampleable=plan.vocab, limits=limits),
        torch_backend.load(plan, tensors, sampleable=plan.vocab, limits=limits, device="cpu"),
    )
    read = Batch.of(
        Segment(np.arange(20, 27, dtype=np.int32), [None], 0), block_tables=tables, want_logits=True
    )
    made = Batch.of(
        Segment(np.array([5], np.int32), [None], 7),
        block_tables=tables,
        want_logits=True,
        draft=True,
    )
    for batch in (read, made):
        got, expected = (executor.step(batch).logits for executor in (core, oracle))
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    core.close()


@pytest.mark.parametrize("name", CORE)
def test_the_core_refuses_what_is_no_draft(
    name: str, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_llm.runner.backends import native

    changes, message = CORE[name]
    real = native.native_program

    def damaged(*arguments: Any) -> Any:
        program = real(*arguments)
        for field, value in {f: made(program) for f, made in changes.items()}.items():
            setattr(program, field, value)
        return program

    monkeypatch.setattr(native, "native_program", damaged)
    plan = with_draft(parts.plan)
    tensors = {spec.name: data for spec, data in parts.tensors.items()}
    limits = Limits(
        max_tokens=4, max_rows=4, max_sequences=1, blocks=(1,) * len(plan.groups), kv_dtype="f32"
    )
    with pytest.raises(NativeError, match=message):
        load(plan, tensors, sampleable=plan.vocab, limits=limits)
