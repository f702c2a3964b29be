"""Pass tie: a parameter that shares the values of another is stored once.

The module declares which; in the graph they are two parameters, since each is quantized for its own
use. Where their formats agree (one of integers serves lookup and product alike) the plan's two
weights name one tensor; where a recipe made them differ, both are stored, from the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge_llm.export.lowering.lowered import Lowered


def tie(lowered: Lowered, tied: Mapping[str, str]) -> Lowered:
    """``tied`` maps a parameter to the one whose values it shares."""
    formats = {weight.name: weight.format for weight in lowered.plan.weights}
    weights = tuple(
        replace(weight, tensor=tied[weight.name])
        if formats.get(tied.get(weight.name, "")) == weight.format
        else weight
        for weight in lowered.plan.weights
    )
    stored = {weight.tensor for weight in weights}
    parts = {
        tensor: tuple(tied.get(part, part) for part in parts)
        for tensor, parts in lowered.parts.items()
        if tensor in stored
    }
    return Lowered(replace(lowered.plan, weights=weights), parts)
