from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from plans import replace

from edge_llm.errors import ProgramError
from edge_llm.program.check import check_documents, check_plan
from edge_llm.program.cost import tensor_bytes
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.plan import Instruction, Method, Plan, State, Value, Weight, matrix


def test_a_plan_with_every_operator_passes(parts: Any) -> None:
    check_plan(parts.plan)
    check_documents(parts.documents, parts.plan)


def find(plan: Plan, op: str) -> tuple[int, Instruction]:
    return next((i, x) for i, x in enumerate(plan.instructions) if x.op == op)


def edit(op: str, /, **changes: Any) -> Callable[[Plan], Plan]:
    """Changes fields of the first ``op``; an attribute's change is spelled ``a_NAME``."""

    def apply(plan: Plan) -> Plan:
        index, old = find(plan, op)
        attributes = old.attributes | {k[2:]: v for k, v in changes.items() if k[:2] == "a_"}
        plain = {k: v for k, v in changes.items() if k[:2] != "a_"}
        new = replace(old, **({"attributes": attributes} | plain))
        return replace(
            plan, instructions=(*plan.instructions[:index], new, *plan.instructions[index + 1 :])
        )

    return apply


def value(op: str, new: Value, output: int = 0) -> Callable[[Plan], Plan]:
    """Replaces the declaration of an output of the first ``op``."""

    def apply(plan: Plan) -> Plan:
        values = list(plan.values)
        values[find(plan, op)[1].outputs[output]] = new
        return replace(plan, values=tuple(values))

    return apply


def weight(name: str, **changes: Any) -> Callable[[Plan], Plan]:
    def apply(plan: Plan) -> Plan:
        return replace(
            plan,
            weights=tuple(replace(w, **changes) if w.name == name else w for w in plan.weights),
        )

    return apply


def rewire(op: str, index: int, number: int) -> Callable[[Plan], Plan]:
    """Makes input ``index`` of the first ``op`` read value ``number``."""

    def apply(plan: Plan) -> Plan:
        inputs = list(find(plan, op)[1].inputs)
        inputs[index] = number
        return edit(op, inputs=tuple(inputs))(plan)

    return apply


def reading_first(plan: Plan) -> Plan:
    """Makes the attention one that writes nothing."""
    op = find(plan, "attention")[1]
    attributes = {name: op.attributes[name] for name in op.attributes if name != "bidirectional"}
    inputs = (op.inputs[0], *op.inputs[3:])
    return edit("attention", op="attend", inputs=inputs, attributes=attributes)(plan)


def swap(first: str, second: str) -> Callable[[Plan], Plan]:
    def apply(plan: Plan) -> Plan:
        order = list(plan.instructions)
        i, j = find(plan, first)[0], find(plan, second)[0]
        order[i], order[j] = order[j], order[i]
        return replace(plan, instructions=tuple(order))

    return apply


def plan_field(**changes: Any) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, **changes)


NAN = float("nan")

HOSTILE: list[tuple[str, Callable[[Plan], Plan]]] = [
    # the plan itself
    ("plan.context", plan_field(context=0)),
    ("plan.context", plan_field(context=2**24 + 1)),
    ("plan.vocab", plan_field(vocab=2**23)),
    ("the logits", plan_field(vocab=95)),
    ("outputs", plan_field(output=0)),
    ("outputs", plan_field(output=-1)),
    ("outputs", plan_field(output=10_000)),
    ("outputs", plan_field(outputs=())),
    ("outputs", plan_field(outputs=(20, 20))),
    ("the first four", plan_field(inputs=(0, 1, 2))),
    ("expected one or more", plan_field(methods={})),
    (
        "each once",
        lambda p: replace(p, methods={"a": p.language_model, "b": p.language_model}),
    ),
    ("names no dimension", lambda p: replace(p, values=(*p.values, Value(("t", 4))))),
    ("dims .count", lambda p: replace(p, values=(*p.values, Value(())))),
    ("dims .count", lambda p: replace(p, values=(*p.values, Value((1, 2, 3, 4, 5))))),
    ("expected f32.T or R", lambda p: replace(p, values=(*p.values, Value(("T", 3, 4))))),
    ("expected f32.T or R", lambda p: replace(p, values=(*p.values, Value(("N", 4))))),
    ("the logits", plan_field(output=4)),
    ("the first four", plan_field(values=())),
    ("the first four", lambda p: replace(p, values=(Value(("T", 2), "i32"), *p.values[1:]))),
    ("no instruction computes", lambda p: replace(p, values=(*p.values, matrix("T", 1)))),
    ("expected f32", lambda p: replace(p, values=(*p.values, Value(("T", 1), "i32")))),
    ("dims", lambda p: replace(p, values=(*p.values, matrix("T", 0)))),
    ("dims", lambda p: replace(p, values=(*p.values, matrix("T", 2**22 + 1)))),
    ("count", lambda p: replace(p, values=p.values * 10_000)),
    ("reads state 0 before it is written", reading_first),
    ("written by 0 instructions", lambda p: replace(p, states=(*p.states, State.kv("b", 1, 8, 8)))),
    ("name is taken", lambda p: replace(p, states=p.states * 2)),
    ("heads", lambda p: replace(p, states=(State.kv("kv", 0, 16, 16),))),
    ("k_dim", lambda p: replace(p, states=(State.kv("kv", 2, 1024, 1024),))),
    ("v_dim", lambda p: replace(p, states=(State.kv("kv", 2, 16, 8),))),
    ("window", lambda p: replace(p, states=(State.kv("kv", 2, 16, 16, -1),))),
    (
        r"sizes: \[\], expected \['heads', 'k_dim', 'key_heads', 'v_dim'\]",
        lambda p: replace(p, states=(State("kv", "fold", {}),)),
    ),
    (
        "heads: is 1, expected a multiple of key_heads 2",
        lambda p: replace(p, states=(*p.states, State.fold("f", 2, 1, 16, 16))),
    ),
    ("is of kind rows, expected kv", lambda p: replace(p, states=(State.rows("kv", 16, 3),))),
    ("width", lambda p: replace(p, states=(State.rows("kv", 0, 3),))),
    (
        r"sizes: \['width'\], expected \['heads', 'k_dim', 'v_dim'\]",
        lambda p: replace(p, states=(State("kv", "kv", {"width": 3}),)),
    ),
    ("kv_heads == state.heads", lambda p: replace(p, states=(State.kv("kv", 4, 8, 8),))),
    # weights
    ("name is taken", lambda p: replace(p, weights=(*p.weights, p.weights[0]))),
    ("no such format", weight("qkv", format=WeightFormat("i4", 16, "f16"))),
    ("does not suit", weight("qkv", shape=(64,))),
    ("does not suit", weight("norm", shape=())),
    ("shape", weight("qkv", shape=(0, 64))),
    ("shape", weight("qkv", shape=(2**25, 64))),
    ("K divisible by 128", weight("qkv", format=WEIGHT_FORMATS["i4g128"])),
    ("cannot name", weight("qkv", tensor="")),
    ("cannot name", weight("qkv", tensor="_pad.1")),
    ("another format", weight("embed", tensor="qkv")),
    (
        "another format",
        lambda p: replace(
            p, weights=(*p.weights, Weight("z", "up", WEIGHT_FORMATS["f32"], (64, 64)))
        ),
    ),
    # edges
    ("before it is computed", rewire("rms_norm", 0, 9)),
    ("before it is computed", swap("embedding", "rms_norm")),
    ("expected 0 to", rewire("rms_norm", 0, -1)),
    ("expected 0 to", rewire("rms_norm", 0, 99)),
    ("computed twice", edit("rms_norm", outputs=(4,))),
    ("computed twice", edit("rms_norm", outputs=(0,))),
    ("expected 0 to", edit("rms_norm", outputs=(-1,))),
    ("2 inputs, expected 1", edit("silu", inputs=(4, 4))),
    ("0 inputs, expected 1", edit("silu", inputs=())),
    ("2 outputs, expected 1", edit("silu", outputs=(5, 6))),
    (r"weights \(count\): is 1, expected 0 to 0", edit("silu", weights=(0,))),
    ("weight table", edit("embedding", weights=(-1,))),
    ("weight table", edit("embedding", weights=(99,))),
    ("weight bias", edit("linear", weights=(2, -2))),
    ("state", edit("silu", state=0)),
    ("state", edit("attention", state=-1)),
    ("state", edit("attention", state=1)),
    ("unknown operator", edit("silu", op="exec")),
    # attributes
    ("attributes", edit("silu", a_cap=1.0)),
    ("attributes", edit("rms_norm", attributes={})),
    ("expected an integer", edit("rms_norm", a_size=64.0)),
    ("finite", edit("rms_norm", a_eps=NAN)),
    ("finite", edit("scale", a_factor=float("inf"))),
    # operators
    ("input tokens is value 1, expected 0", rewire("embedding", 0, 1)),
    ("vocab <= n", weight("embed", tensor="e", shape=(80, 64))),
    ("expected packed panels", edit("embedding", weights=(1,))),
    ("the output is", value("embedding", matrix("T", 32))),
    ("the output is", value("embedding", matrix("R", 64))),
    ("weight weight is", weight("qkv", shape=(128, 32))),
    ("weight bias is", weight("qkv.bias", shape=(64,))),
    ("activations of raw_f32 are not rounded", weight("qkv.bias", activations="group")),
    ("expected raw_f32", edit("linear", weights=(2, 0))),
    ("expected f32", rewire("linear", 0, 0)),
    ("weight weight is", edit("rms_norm", a_size=48)),
    (
        "size divides w",
        lambda p: weight("norm", shape=(48,))(edit("rms_norm", a_size=48)(p)),
    ),
    ("size", edit("rms_norm", a_size=0)),
    ("weight weight is", edit("rms_norm", a_size=32)),
    ("eps", edit("rms_norm", a_eps=0.0)),
    ("input positions is value 2, expected 1", rewire("rope", 1, 2)),
    (r"heads\*head_dim = 48", edit("rope", a_heads=3)),
    ("head_dim", edit("rope", a_head_dim=0)),
    ("heads", edit("rope", a_heads=-4, a_head_dim=16)),
    ("weight cos is", weight("cos", shape=(128,))),
    ("weight sin is", weight("sin", shape=(128, 4))),
    ("context <= p", plan_field(context=129)),
    (
        r"2\*d <= head_dim",
        lambda p: weight("cos", shape=(128, 16))(weight("sin", shape=(128, 16))(p)),
    ),
    ("input positions is value 2, expected 1", rewire("attention", 3, 2)),
    ("input sequences is value 1, expected 2", rewire("attention", 4, 1)),
    (r"heads\*head_dim = 128", edit("attention", a_heads=8)),
    (r"kv_heads\*head_dim = 16", edit("attention", a_kv_heads=1)),
    ("input v is", rewire("attention", 2, 4)),
    ("scale", edit("attention", a_scale=0.0)),
    ("softcap", edit("attention", a_softcap=-1.0)),
    ("bidirectional", edit("attention", a_bidirectional=2)),
    ("input y is", rewire("add", 1, 6)),
    ("an output is", value("split", matrix("R", 64))),
    ("do not add up", value("split", matrix("T", 48))),
    ("expected 1 to 4", edit("split", outputs=(7, 8, 9, 4, 5))),
    ("expected 1 to 4", edit("split", outputs=())),
    ("input rows is value 0, expected 3", rewire("select_rows", 1, 0)),
    ("the output is", value("select_rows", matrix("T", 64))),
    ("cap", edit("softcap", a_cap=0.0)),
]


@pytest.mark.parametrize(("message", "change"), HOSTILE)
def test_hostile_plans_are_refused(
    parts: Any, message: str, change: Callable[[Plan], Plan]
) -> None:
    with pytest.raises(ProgramError, match=message):
        check_plan(change(parts.plan))


def test_weights_may_be_stacks_of_matrices(parts: Any) -> None:
    experts = Weight("experts", "experts", WEIGHT_FORMATS["i4g32"], (8, 40, 64))
    plan = replace(parts.plan, weights=(*parts.plan.weights, experts))
    check_plan(plan)
    one = tensor_bytes(replace(experts, shape=(40, 64)))
    assert tensor_bytes(experts) == 8 * one


def test_methods_of_other_kinds_are_read_and_not_run(parts: Any) -> None:
    """The meaning of their operators is not known; that values come before their readers is."""
    pixels, classes = Value(("N", 3, 224, 224)), Value(("N", 10))
    look = Instruction("linear", (0,), (1,), (0,))
    method = Method("classify", (0,), (pixels, classes), (look,), (1,))
    plan = replace(parts.plan, methods={"look": method, **parts.plan.methods})
    check_plan(plan)
    assert plan.language_model is parts.plan.language_model
    late = replace(method, instructions=(replace(look, inputs=(1,)),))
    with pytest.raises(ProgramError, match=r"methods\['look'\].* before it is computed"):
        check_plan(replace(plan, methods={"look": late}))
    alone = replace(plan, states=(), methods={"look": method})
    check_plan(alone)
    with pytest.raises(ProgramError, match=r"look \(classify\), expected one of kind causal_lm"):
        _ = alone.instructions


def test_rows_are_selected_once(parts: Any) -> None:
    plan = parts.plan
    index, select = find(plan, "select_rows")
    again = replace(select, inputs=(select.outputs[0], 3), outputs=(len(plan.values),))
    hostile = replace(
        plan,
        values=(*plan.values, matrix("R", 64)),
        instructions=(*plan.instructions[: index + 1], again, *plan.instructions[index + 1 :]),
    )
    with pytest.raises(ProgramError, match=r"expected f32\[T"):
        check_plan(hostile)


def test_query_heads_are_a_multiple_of_key_heads(parts: Any) -> None:
    """Three key heads of 16 for four query heads, consistent in every width."""
    b = parts.plan
    index, split = find(b, "split")
    values = list(b.values)
    values[split.outputs[0]], values[split.outputs[1]] = matrix("T", 32), matrix("T", 48)
    values[split.outputs[2]] = matrix("T", 48)
    attention = find(b, "attention")[1]
    new = replace(
        attention,
        inputs=(split.outputs[0], split.outputs[1], split.outputs[2], 1, 2),
        attributes=attention.attributes | {"heads": 2, "kv_heads": 3},
    )
    values[attention.outputs[0]] = matrix("T", 32)
    hostile = replace(
        b,
        values=tuple(values),
        states=(State.kv("kv", 3, 16, 16),),
        instructions=(*b.instructions[: index + 1], new),
    )
    with pytest.raises(ProgramError, match="kv_heads divides heads"):
        check_plan(hostile)


DOCUMENTS: list[tuple[str, str, dict[str, Any]]] = [
    ("model.context", "model", {"context": 64}),
    ("model.vocab", "model", {"vocab": 64}),
    ("tokenizer.size", "tokenizer", {"size": 97}),
    ("tokenizer.bos_id", "tokenizer", {"bos_id": 96}),
    ("tokenizer.eos_id", "tokenizer", {"eos_id": -1}),
    ("tokenizer.add_bos", "tokenizer", {"bos_id": None}),
    (r"generation.stop_ids\[1\]", "generation", {"stop_ids": (2, 96)}),
    ("generation.temperature", "generation", {"temperature": 2.5}),
    ("generation.top_p", "generation", {"top_p": NAN}),
    ("generation.min_p", "generation", {"min_p": -0.1}),
    ("generation.repetition_penalty", "generation", {"repetition_penalty": 0.0}),
]


@pytest.mark.parametrize(("message", "document", "changes"), DOCUMENTS)
def test_documents_must_agree_with_the_plan(
    parts: Any, message: str, document: str, changes: dict[str, Any]
) -> None:
    old = getattr(parts.documents, document)
    documents = replace(parts.documents, **{document: replace(old, **changes)})
    with pytest.raises(ProgramError, match=message):
        check_documents(documents, parts.plan)
