"""A plan in a few lines, and the memory that its steps take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from edge_llm.program.formats import RAW_F32
from edge_llm.program.ops import OPS
from edge_llm.program.plan import INPUT_NAMES, Instruction, Plan, layer_of

_LANES = 16  # rows of activations are padded to so many floats
_IN_PLACE = tuple(name for name, spec in OPS.items() if spec.in_place)
_FLOAT_BYTES = 4


def outline(plan: Plan) -> dict[str, Any]:
    """The instructions as JSON values: how many, how many of each operator, and ``parts`` in their
    order: what stands outside of layers (``layers`` null), and layers that are alike, told once,
    each with the instructions of one of them in words."""
    parts: list[dict[str, Any]] = []
    for layer, instructions in groupby(plan.instructions, lambda i: layer_of(plan, i)):
        words = [_words(plan, instruction) for instruction in instructions]
        alike = [part for part in parts if part["layers"] and part["instructions"] == words]
        if layer is not None and alike:
            alike[0]["layers"].append(layer)
        else:
            parts.append({"layers": None if layer is None else [layer], "instructions": words})
    counts = Counter(instruction.op for instruction in plan.instructions)
    return {
        "instructions": len(plan.instructions),
        "operators": dict(counts.most_common()),
        "parts": parts,
    }


def describe_outline(document: dict[str, Any]) -> str:
    """`outline` as text."""
    listed = ", ".join(f"{count} {op}" for op, count in document["operators"].items())
    lines = [f"plan: {document['instructions']} instructions: {listed}"]
    for part in document["parts"]:
        if part["layers"] is not None:
            alone = len(part["layers"]) == 1
            lines.append(f"  {'layer' if alone else 'each of layers'} {_ranges(part['layers'])}:")
        indent = "  " if part["layers"] is None else "    "
        lines += [indent + words for words in part["instructions"]]
    return "\n".join(lines)


def activation_bytes(plan: Plan, *, tokens: int, rows: int) -> int:
    """Return about the bytes of activations in a step of ``tokens`` tokens and ``rows`` rows of
    logits: values while they are needed (slices share, elementwise operators work in place), and
    one linear's input in int8."""
    counts = {"T": tokens, "R": rows}
    widths = {"T": 0, "R": 0}
    for kind in widths:
        widths[kind] = _peak_width(plan, kind)
    quantized = max(
        (
            plan.weights[instruction.weights[0]].shape[1]
            * counts[plan.values[instruction.outputs[0]].rows]
            for instruction in plan.instructions
            if instruction.op == "linear"
            and not plan.weights[instruction.weights[0]].format.is_float
        ),
        default=0,
    )
    return quantized + _FLOAT_BYTES * sum(widths[kind] * counts[kind] for kind in widths)


def _ranges(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 4] -> "0-2, 4"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] + 1 == number:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _peak_width(plan: Plan, rows: str) -> int:
    """Floats per row that are alive at once, at most."""
    first = range(len(INPUT_NAMES))
    last_use = {plan.output: len(plan.instructions)}
    for index, instruction in enumerate(plan.instructions):
        for number in instruction.inputs:
            last_use[number] = max(last_use.get(number, 0), index)
    home: dict[int, int] = {}  # value -> the one whose memory it uses
    for index, instruction in enumerate(plan.instructions):
        reuses = instruction.op == "split" or (
            instruction.op in _IN_PLACE and last_use[instruction.inputs[0]] == index
        )
        for number in instruction.outputs:
            source = instruction.inputs[0]
            home[number] = home.get(source, source) if reuses else number
    ends: dict[int, int] = {}
    for number, owner in home.items():
        ends[owner] = max(ends.get(owner, 0), last_use.get(number, 0))
    peak = 0
    alive: set[int] = set()
    for index, instruction in enumerate(plan.instructions):
        alive |= {home[number] for number in instruction.outputs}
        width = sum(
            -(-plan.values[number].width // _LANES) * _LANES
            for number in alive
            if number not in first and plan.values[number].rows == rows
        )
        peak = max(peak, width)
        alive = {number for number in alive if ends.get(number, 0) > index}
    return peak


def _words(plan: Plan, instruction: Instruction) -> str:
    """``linear 2048 -> 3072 (i4g32)``."""
    widths = [plan.values[number].width for number in instruction.outputs]
    text = f"{instruction.op} {' + '.join(map(str, widths))}"
    if instruction.op == "linear":
        text = f"linear {plan.values[instruction.inputs[0]].width} -> {widths[0]}"
    details = [
        plan.weights[index].format.name
        for index in instruction.weights
        if index >= 0 and plan.weights[index].format != RAW_F32
    ]
    names = [operand.name for operand in OPS[instruction.op].weights]
    if "bias" in names and instruction.weights[names.index("bias")] >= 0:
        details.append("bias")
    if instruction.state >= 0:
        window = plan.states[instruction.state].window
        details.append(f"cache, window {window}" if window else "cache")
    details += [
        f"{name} {value}"
        for name, value in instruction.attributes.items()
        if name in ("heads", "kv_heads", "head_dim", "size") and value
    ]
    return f"{text} ({', '.join(details)})" if details else text
