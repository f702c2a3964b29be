"""Where the parameters of a model are in the weights of its program.

An export joins linears of one input into one (export/passes/merge.py): a weight has the rows of
several parameters then, one below the other, and the names of all in its own. How many rows each
has is told by the split that follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_llm.program.plan import Plan

_END = ".weight"


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one parameter in weight number ``weight`` of the plan: ``rows`` of them from
    ``begin``, of ``columns`` each. It is number ``place`` of the weight's parameters, or the
    ``whole`` of it. A ``table`` is read by tokens."""

    weight: int
    place: int
    begin: int
    rows: int
    columns: int
    whole: bool
    table: bool


def parameters_of(plan: Plan) -> Mapping[str, Part]:
    """Return the parameters that adapters can change: matrices of linears and tables of embeddings
    of the language model."""
    model = plan.language_model
    widths = {  # of the parts of a value
        op.inputs[0]: [model.values[number].width for number in op.outputs]
        for op in model.instructions
        if op.op == "split"
    }
    found: dict[str, Part] = {}
    for op in model.instructions:
        if op.op not in ("linear", "embedding"):
            continue
        index = op.weights[0]
        weight = plan.weights[index]
        rows, columns = weight.shape
        names = part_names(weight.name)
        sizes = [rows] if len(names) == 1 else widths.get(op.outputs[0], [])
        if len(sizes) != len(names):
            continue  # no program of ours: nothing says whose rows these are
        begin, whole, table = 0, len(names) == 1, op.op == "embedding"
        for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
            found[name] = Part(index, place, begin, size, columns, whole, table)
            begin += size
    return found


def part_names(name: str) -> Sequence[str]:
    """Return the names that export/passes/merge.py has joined: ``a.q_proj+k_proj.weight`` is
    ``a.q_proj.weight`` and ``a.k_proj.weight``."""
    whole = name.split("+")
    if len(whole) == 1 or all(part.endswith(_END) for part in whole):
        return whole
    segments = [segment.split("+") for segment in name.split(".")]
    count = max(map(len, segments))
    if any(len(segment) not in (1, count) for segment in segments):
        return [name]
    return [
        ".".join(segment[part if len(segment) > 1 else 0] for segment in segments)
        for part in range(count)
    ]
