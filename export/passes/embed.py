"""Pass embed: a second method, which gives the hidden states that the head reads.

It is the language model without its head, so that it shares all weights and states, and costs the
file its instructions alone.
"""

from __future__ import annotations

from dataclasses import replace

from edge_llm.export.lowering.lowered import Lowered
from edge_llm.llm.checkpoints.source import HEAD
from edge_llm.program.plan import Method


def embed(lowered: Lowered) -> Lowered:
    """Add the method ``embed``; a model without a head of the usual name stays as it is."""
    plan = lowered.plan
    model = plan.language_model
    heads = [
        instruction.inputs[0]
        for instruction in model.instructions
        if instruction.op == "linear" and plan.weights[instruction.weights[0]].name == HEAD
    ]
    if len(heads) != 1 or model.values[heads[0]].rows != "R":
        return lowered
    (hidden,) = heads
    end = next(i for i, op in enumerate(model.instructions) if hidden in op.outputs) + 1
    instructions = model.instructions[:end]
    count = 1 + max(number for op in instructions for number in op.outputs)
    method = Method("embed", model.inputs, model.values[:count], instructions, (hidden,))
    return replace(lowered, plan=replace(plan, methods={**plan.methods, method.signature: method}))
