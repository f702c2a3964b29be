"""Pass assign: every matrix of the plan gets the format that the recipe gives it, and those of
integers how what they are multiplied with is rounded."""

from __future__ import annotations

from dataclasses import replace

from edge_llm.export.lowering.lowered import Lowered
from edge_llm.export.recipes.formats import Assignment
from edge_llm.llm.stacks import members
from edge_llm.program.plan import Plan, Weight


def assign(plan: Plan, assignment: Assignment) -> Lowered:
    """Return ``plan`` with what its matrices are assigned; other weights stay as they are."""

    def assigned(weight: Weight) -> Weight:
        form = assignment.formats.get(weight.name, weight.format)
        way = assignment.activations.get(weight.name, weight.activations)
        return replace(weight, format=form, activations=way)

    weights = tuple(map(assigned, plan.weights))
    parts = {weight.tensor: tuple(members(weight.name, weight.shape)) for weight in weights}
    return Lowered(replace(plan, weights=weights), parts)
