"""Pass embed: a second method, which gives the hidden states that the head reads.

It is the language model without its head, so that it shares all weights and states, and costs the
file its instructions alone. Where matrices of its own follow, it is there from the beginning, so
that these get their formats like all others (`project`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_llm.errors import ExportError
from edge_llm.export.lowering.lowered import Lowered
from edge_llm.llm.checkpoints.source import HEAD, projection_name
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.plan import Instruction, Method, Plan, Weight, matrix


def embed(lowered: Lowered) -> Lowered:
    """Add the method ``embed``, unless it is there; a model without a head of the usual name stays
    as it is."""
    method = None if lowered.plan.embed else _method(lowered.plan)
    return lowered if method is None else replace(lowered, plan=_with(lowered.plan, method))


def project(plan: Plan, shapes: Sequence[tuple[int, int]]) -> Plan:
    """Return ``plan`` with the method ``embed``, whose hidden states are multiplied with matrices
    of these ``shapes``, one after the other.

    Raises:
        ExportError: it has no head of the usual name.
    """
    method = _method(plan)
    if method is None:
        raise ExportError(f"the model has no {HEAD}, whose hidden states a projection takes")
    weights, values, instructions = list(plan.weights), list(method.values), [*method.instructions]
    for number, (rows, columns) in enumerate(shapes):
        name = projection_name(number)
        weights.append(Weight(name, name, WEIGHT_FORMATS["f32"], (rows, columns)))
        inputs = instructions[-1].outputs
        instructions.append(
            Instruction("linear", inputs, (len(values),), (len(weights) - 1, -1), source=name)
        )
        values.append(matrix("R", rows))
    outputs = instructions[-1].outputs
    method = replace(
        method, values=tuple(values), instructions=tuple(instructions), outputs=outputs
    )
    return _with(replace(plan, weights=tuple(weights)), method)


def _with(plan: Plan, method: Method) -> Plan:
    return replace(plan, methods={**plan.methods, method.signature: method})


def _method(plan: Plan) -> Method | None:
    """Return the language model up to what its head reads; None where there is no such head."""
    model = plan.language_model
    heads = [
        instruction.inputs[0]
        for instruction in model.instructions
        if instruction.op == "linear" and plan.weights[instruction.weights[0]].name == HEAD
    ]
    if len(heads) != 1 or model.values[heads[0]].rows != "R":
        return None
    (hidden,) = heads
    end = next(i for i, op in enumerate(model.instructions) if hidden in op.outputs) + 1
    instructions = model.instructions[:end]
    count = 1 + max(number for op in instructions for number in op.outputs)
    return Method("embed", model.inputs, model.values[:count], instructions, (hidden,))
