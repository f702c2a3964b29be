"""Pass assign: every matrix of the plan gets the format that the recipe gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge_llm.export.lowering.lowered import Lowered
from edge_llm.llm.stacks import members
from edge_llm.program.formats import WeightFormat
from edge_llm.program.plan import Plan


def assign(plan: Plan, formats: Mapping[str, WeightFormat]) -> Lowered:
    """Return ``plan`` with the ``formats`` of its matrices, by name; other weights stay as they
    are."""
    weights = tuple(
        replace(weight, format=formats.get(weight.name, weight.format)) for weight in plan.weights
    )
    parts = {weight.tensor: tuple(members(weight.name, weight.shape)) for weight in weights}
    return Lowered(replace(plan, weights=weights), parts)
