"""Changing plans, as hostile files do."""

from __future__ import annotations

import dataclasses
from typing import Any

from edge_llm.program.plan import Instruction, Method, Plan, matrix


def replace(thing: Any, **changes: Any) -> Any:
    """Replace fields as `dataclasses.replace`, those of a plan's language model by their names."""
    if isinstance(thing, Plan):
        if "output" in changes:
            changes["outputs"] = (changes.pop("output"),)
        names = ("signature", "inputs", "values", "instructions", "outputs")
        own = {name: changes.pop(name) for name in names if name in changes}
        if own:
            method = dataclasses.replace(thing.language_model, **own)
            changes["methods"] = {method.signature: method}
    return dataclasses.replace(thing, **changes)


def with_embed(plan: Plan, **changes: Any) -> Plan:
    """``plan`` with a method that halves the rows its head reads; ``changes`` are fields of it."""
    model = plan.language_model
    end = next(i for i, op in enumerate(model.instructions) if op.op == "select_rows") + 1
    (selected,) = model.instructions[end - 1].outputs
    width = model.values[selected].width
    half = Instruction("scale", (selected,), (selected + 1,), attributes={"factor": 0.5})
    method = Method(
        "embed",
        model.inputs,
        (*model.values[: selected + 1], matrix("R", width)),
        (*model.instructions[:end], half),
        (selected + 1,),
    )
    return dataclasses.replace(
        plan, methods={**plan.methods, "embed": dataclasses.replace(method, **changes)}
    )
