"""Pass merge: linears that share an input become one linear and a split.

A step then streams one matrix (q, k and v; gate and up) where it would have streamed several, and
rounds their common input to int8 once. Rows of a product do not depend on each other, so not one
bit of the result changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edge_llm.export.lowering.lowered import Lowered
from edge_llm.program.builder import PlanBuilder
from edge_llm.program.ops import MAX_OUTPUTS
from edge_llm.program.plan import HIDDEN, Method, Plan


def merge(lowered: Lowered, *, row_multiple: int) -> Lowered:
    """Merges linears of the same input, format and presence of bias, up to what a split can
    return. ``row_multiple``: packed chunks of so many rows can be joined, so every part but the
    last must be a multiple of it; others stay apart."""
    plan = lowered.plan
    builder = PlanBuilder()
    parts: dict[str, tuple[str, ...]] = {}
    for method in plan.methods.values():
        _merge_method(lowered, method, row_multiple, builder, parts)
    return Lowered(builder.finish(context=plan.context, vocab=plan.vocab), parts)


def _merge_method(
    lowered: Lowered,
    method: Method,
    row_multiple: int,
    builder: PlanBuilder,
    parts: dict[str, tuple[str, ...]],
) -> None:
    """Merge the linears of one method; its parts go to ``parts``."""
    plan = lowered.plan
    groups = _groups(plan, method, row_multiple)
    merged_away = {index for group in groups.values() for index in group[1:]}
    numbers = {number: number for number in method.inputs}  # old value -> new value
    if HIDDEN in numbers:
        builder.begin(method.values[HIDDEN].width)

    for index, instruction in enumerate(method.instructions):
        if index in merged_away:
            continue
        members = [method.instructions[member] for member in groups.get(index, (index,))]
        weights = [
            _merged_weight(builder, parts, lowered, [member.weights[slot] for member in members])
            for slot in range(len(instruction.weights))
        ]
        state = instruction.state
        if state >= 0:
            state = builder.state(plan.states[state])
        outputs = [number for member in members for number in member.outputs]
        widths = [method.values[number].width for number in outputs]
        rows = method.values[outputs[0]].rows
        new = builder.emit(
            instruction.op,
            [numbers[number] for number in instruction.inputs],
            [sum(widths)] if len(members) > 1 else widths,
            rows=rows,
            weights=weights,
            state=state,
            attributes=instruction.attributes,
            source=instruction.source,
        )
        if len(members) > 1:
            new = builder.emit("split", new, widths, rows=rows, source=instruction.source)
        numbers |= dict(zip(outputs, new, strict=True))

    builder.close(method.signature, *(numbers[number] for number in method.outputs))


def _groups(plan: Plan, method: Method, row_multiple: int) -> Mapping[int, Sequence[int]]:
    """First instruction of a merged linear -> all of its instructions, in order."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, instruction in enumerate(method.instructions):
        if instruction.op == "linear":
            weight, bias = instruction.weights
            matrix = plan.weights[weight]
            key = (instruction.inputs, matrix.format, matrix.activations, bias >= 0)
            alike.setdefault(key, []).append(index)
    groups: dict[int, list[int]] = {}
    for members in alike.values():
        group: list[int] = []
        for index in members:
            group.append(index)
            rows = plan.weights[method.instructions[index].weights[0]].shape[0]
            if rows % row_multiple or len(group) == MAX_OUTPUTS:
                groups[group[0]] = group
                group = []
        if group:
            groups[group[0]] = group
    return groups


def _merged_weight(
    builder: PlanBuilder,
    parts: dict[str, tuple[str, ...]],
    lowered: Lowered,
    indices: Sequence[int],
) -> int:
    """Return the index of the weight that holds those of ``indices``; its parts go to ``parts``."""
    if indices[0] < 0:
        return -1
    weights = [lowered.plan.weights[index] for index in indices]
    merged = weights[0]
    if len(weights) > 1:
        name = joined_name([weight.name for weight in weights])
        shape = (sum(weight.shape[0] for weight in weights), *merged.shape[1:])
        merged = replace(merged, name=name, tensor=name, shape=shape)
    parts[merged.tensor] = tuple(
        part for weight in weights for part in lowered.parts[weight.tensor]
    )
    return builder.weight(merged)


def joined_name(names: Sequence[str]) -> str:
    """``a.q_proj.weight``, ``a.k_proj.weight`` -> ``a.q_proj+k_proj.weight``."""
    pieces = [name.split(".") for name in names]
    if len({len(piece) for piece in pieces}) > 1:
        return "+".join(names)
    return ".".join(
        "+".join(segments) if len(set(segments)) > 1 else segments[0]
        for segments in zip(*pieces, strict=True)
    )
