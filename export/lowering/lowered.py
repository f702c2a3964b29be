"""A plan on its way to a file: the plan, and which tensors of the model fill its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_llm.program.plan import Plan


@dataclass(frozen=True, slots=True)
class Lowered:
    """``parts`` maps the name of each of the file's tensors to the parameters of the checkpoint, or
    buffers of the model, that it holds, joined along N in this order."""

    plan: Plan
    parts: Mapping[str, tuple[str, ...]]
