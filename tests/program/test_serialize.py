from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edge_llm.errors import ProgramError
from edge_llm.program.plan import State
from edge_llm.program.serialize import (
    documents_from_metadata,
    documents_to_metadata,
    plan_from_text,
    plan_to_text,
)
from edge_llm.program.strict import parse_json

Edit = Callable[[dict[str, Any]], object]


def test_plan_survives_the_round_trip(parts: Any) -> None:
    assert plan_from_text(plan_to_text(parts.plan)) == parts.plan


def test_a_weight_says_how_what_it_multiplies_is_rounded(parts: Any) -> None:
    """Where it does not, as in files of before 2.4, a token has one scale."""
    assert '"activations"' not in plan_to_text(parts.plan)
    first, *others = parts.plan.weights
    plan = replace(parts.plan, weights=(replace(first, activations="group"), *others))
    assert plan_from_text(plan_to_text(plan)) == plan


def test_states_of_each_kind_survive_the_round_trip(parts: Any) -> None:
    states = (State.kv("a", 2, 16, 16, 70), State.rows("b", 64, 3))
    assert plan_from_text(plan_to_text(replace(parts.plan, states=states))).states == states


def test_documents_survive_the_round_trip(parts: Any) -> None:
    for documents in (parts.documents, replace(parts.documents, chat_template=None)):
        assert documents_from_metadata(documents_to_metadata(documents)) == documents


def test_attributes_that_older_files_lack(parts: Any) -> None:
    text = plan_to_text(parts.plan)
    assert text.count('"bidirectional":0') == 1
    for older in (text.replace(',"bidirectional":0', ""), text.replace('"bidirectional":0,', "")):
        assert plan_from_text(older) == parts.plan or older == text


def test_integers_stand_for_floats(parts: Any) -> None:
    text = plan_to_text(parts.plan).replace('"factor":0.5', '"factor":2')
    plan = plan_from_text(text)
    factor = next(i for i in plan.instructions if i.op == "scale").attributes["factor"]
    assert factor == 2.0
    assert isinstance(factor, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "does not fit a double"),
        ('{"a": 1, "a": 2}', "twice"),
        ('"\\ud800"', "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "not valid JSON"),
    ],
)
def test_json_that_the_standard_module_lets_through(text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        parse_json(text, "document")


def test_json_takes_paired_surrogates_and_escaped_backslashes() -> None:
    assert parse_json('"\\ud83d\\ude00 \\\\ud800"', "document") == "\U0001f600 \\ud800"


def lm(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the one method."""
    method: dict[str, Any] = plan["methods"]["causal_lm"]
    return method


PLAN_EDITS: list[tuple[str, Edit]] = [
    ("plan: missing methods", lambda p: p.pop("methods")),
    ("plan: unknown key 'extra'", lambda p: p.update(extra=1)),
    ("plan.context: expected an integer", lambda p: p.update(context=True)),
    ("plan.context: expected an integer", lambda p: p.update(context=1.0)),
    ("plan.vocab is out of range", lambda p: p.update(vocab=2**31)),
    ("values: expected a list", lambda p: lm(p).update(values={})),
    ("values: 65537 entries", lambda p: lm(p).update(values=[0] * 65537)),
    (r"values\[0\]: expected an object", lambda p: lm(p)["values"].__setitem__(0, 1)),
    (r"values\[1\].dims: expected a list", lambda p: lm(p)["values"][1].update(dims="T")),
    (r"values\[1\].dims: 5 entries", lambda p: lm(p)["values"][1].update(dims=[1] * 5)),
    (
        r"values\[1\].dims\[0\]: expected an integer",
        lambda p: lm(p)["values"][1].update(dims=[None]),
    ),
    (r"plan.methods: expected an object", lambda p: p.update(methods=[])),
    (r"plan.methods: 17 entries", lambda p: p.update(methods={str(i): {} for i in range(17)})),
    (r"plan.methods\['causal_lm'\]: unknown key", lambda p: lm(p).update(more=1)),
    (r"signature: got 'translate'", lambda p: lm(p).update(signature="translate")),
    (r"outputs: 17 entries", lambda p: lm(p).update(outputs=[4] * 17)),
    (r"values\[1\].dtype", lambda p: lm(p)["values"][1].update(dtype="f64")),
    (
        r"plan.weights\[0\].shape: 5 entries",
        lambda p: p["weights"][0].update(shape=[1, 2, 3, 4, 5]),
    ),
    (r"plan.weights\[0\].format: expected an obj", lambda p: p["weights"][0].update(format="i8")),
    (r"format.code: got 'i3'", lambda p: p["weights"][0]["format"].update(code="i3")),
    (r"format.group: expected an", lambda p: p["weights"][0]["format"].update(group="32")),
    (r"format.minimum: got None", lambda p: p["weights"][0]["format"].update(minimum=None)),
    (r"format: unknown key 'bits'", lambda p: p["weights"][0]["format"].update(bits=4)),
    (r"activations: got 'row'", lambda p: p["weights"][0].update(activations="row")),
    (r"plan.weights\[0\].name: expected a string", lambda p: p["weights"][0].update(name=None)),
    (r"plan.weights\[0\].name: 5000 char", lambda p: p["weights"][0].update(name="x" * 5000)),
    (r"plan.states\[0\]: missing v_dim", lambda p: p["states"][0].pop("v_dim")),
    (
        r"plan.states\[0\]: missing key_heads",
        lambda p: p["states"][0].update(kind="fold"),
    ),
    (r"plan.states\[0\].kind: got 'x'", lambda p: p["states"][0].update(kind="x")),
    (r"instructions\[0\].op: unknown", lambda p: lm(p)["instructions"][0].update(op="exec")),
    (r"instructions\[0\].inputs: 17", lambda p: lm(p)["instructions"][0].update(inputs=[0] * 17)),
    (
        r"instructions\[1\].attributes: missing",
        lambda p: lm(p)["instructions"][1].update(attributes={}),
    ),
    (
        r"instructions\[1\].attributes.eps: expected a number",
        lambda p: lm(p)["instructions"][1]["attributes"].update(eps="1"),
    ),
    (
        r"instructions\[1\].attributes.eps does not fit",
        lambda p: lm(p)["instructions"][1]["attributes"].update(eps=1e300),
    ),
    (
        r"instructions\[1\].attributes: unknown key",
        lambda p: lm(p)["instructions"][1]["attributes"].update(code=1),
    ),
]


@pytest.mark.parametrize(("message", "edit"), PLAN_EDITS)
def test_malformed_plans_name_the_field(parts: Any, message: str, edit: Edit) -> None:
    record = json.loads(plan_to_text(parts.plan))
    edit(record)
    with pytest.raises(ProgramError, match=message):
        plan_from_text(json.dumps(record))


DOCUMENT_EDITS: list[tuple[str, str, Any]] = [
    ("model", "model: missing", {}),
    ("model", "model: expected an object", []),
    ("tokenizer", "tokenizer.size", {"size": 0, "bos_id": 1, "eos_id": 1, "add_bos": False}),
    ("tokenizer", "tokenizer.bos_id", {"size": 9, "bos_id": "1", "eos_id": 1, "add_bos": False}),
    ("tokenizer", "tokenizer.add_bos", {"size": 9, "bos_id": 1, "eos_id": 1, "add_bos": 1}),
    ("generation", "generation: missing", {"stop_ids": [1]}),
    ("report", "report: expected an object", None),
]


@pytest.mark.parametrize(("name", "message", "value"), DOCUMENT_EDITS)
def test_malformed_documents_name_the_field(
    parts: Any, name: str, message: str, value: Any
) -> None:
    metadata = documents_to_metadata(parts.documents)
    with pytest.raises(ProgramError, match=message):
        documents_from_metadata(metadata | {f"edge_llm.{name}": json.dumps(value)})


def test_missing_and_oversized_documents(parts: Any) -> None:
    metadata = documents_to_metadata(parts.documents)
    with pytest.raises(ProgramError, match="chat_template: 300000 characters"):
        documents_from_metadata(metadata | {"edge_llm.chat_template": "x" * 300_000})
    del metadata["edge_llm.tokenizer"]
    with pytest.raises(ProgramError, match=r"lacks edge_llm\.tokenizer"):
        documents_from_metadata(metadata)
