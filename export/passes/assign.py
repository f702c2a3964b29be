"""Pass assign: every matrix of the plan gets the format that the recipe gives it, and those of
integers how what they are multiplied with is rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge_llm.export.lowering.lowered import Lowered
from edge_llm.llm.stacks import members
from edge_llm.program.formats import Activations, WeightFormat
from edge_llm.program.plan import Plan, Weight


def assign(
    plan: Plan, formats: Mapping[str, WeightFormat], activations: Activations = "token"
) -> Lowered:
    """Return ``plan`` with the ``formats`` of its matrices, by name; other weights stay as they
    are."""

    def assigned(weight: Weight) -> Weight:
        form = formats.get(weight.name, weight.format)
        way = "token" if form.is_float else activations
        return replace(weight, format=form, activations=way)

    weights = tuple(map(assigned, plan.weights))
    parts = {weight.tensor: tuple(members(weight.name, weight.shape)) for weight in weights}
    return Lowered(replace(plan, weights=weights), parts)
