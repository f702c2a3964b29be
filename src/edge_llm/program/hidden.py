"""The hidden states of a program: what its ``embed`` method computes beyond its language model.

A runner has one set of states, whichever method fills them. So the two methods compute the same for
all tokens, and only what each makes of the wanted rows is its own: that part of ``embed`` is run
beside the language model, in the same step.

What its ``draft`` method computes goes on from those hidden states. Its operator ``previous`` keeps
them, so that a row of its other states follows from the tokens up to its own, as a row of every
state does: every step fills them. A draft is a step of its own, of one token a sequence: it reads
the hidden states of the token before, and keeps its own in place of that token's, from which the
next one goes on. A step of the language model then writes what is true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_llm.errors import ProgramError
from edge_llm.program.plan import HIDDEN, Instruction, Method, Plan, Value, matrix


@dataclass(frozen=True, slots=True)
class Tail:
    """Instructions behind those of the language model that compute hidden states for every token,
    as ``[T, width]``. ``values`` are numbered on from those of the language model; ``output`` is
    the number of the hidden states."""

    values: tuple[Value, ...]
    instructions: tuple[Instruction, ...]
    output: int
    width: int


def hidden_tail(plan: Plan) -> Tail | None:
    """Return what computes a program's hidden states; None if it has no ``embed`` method.

    Raises:
        ProgramError: the method computes something for all tokens that the language model does
            not compute in the same place, or there is no language model.
    """
    method = plan.embed
    if method is None:
        return None
    model = plan.language_model
    first = len(model.values)
    numbers = {number: number for number in method.inputs}  # its values -> those of both together
    values: list[Value] = []
    instructions: list[Instruction] = []
    for index, instruction in enumerate(method.instructions):
        made = [method.values[number] for number in instruction.outputs]
        if any(value.rows == "T" for value in made):
            _check_shared(model, method, index)
            numbers |= {number: number for number in instruction.outputs}
        elif instruction.op == "select_rows":
            numbers[instruction.outputs[0]] = numbers[instruction.inputs[0]]
        else:
            begin = first + len(values)
            values += [matrix("T", value.width) for value in made]
            outputs = tuple(range(begin, first + len(values)))
            inputs = tuple(numbers[number] for number in instruction.inputs)
            instructions.append(replace(instruction, inputs=inputs, outputs=outputs))
            numbers |= dict(zip(instruction.outputs, outputs, strict=True))
    output = method.outputs[0]
    return Tail(tuple(values), tuple(instructions), numbers[output], method.values[output].width)


@dataclass(frozen=True, slots=True)
class DraftPart:
    """The instructions of a ``draft`` method behind those of the language model and its tail.
    ``values`` are numbered on from theirs, ``hidden`` is the number of the hidden states that it is
    given, ``logits`` and ``output`` those of what it gives."""

    values: tuple[Value, ...]
    instructions: tuple[Instruction, ...]
    hidden: int
    logits: int
    output: int


def draft_part(plan: Plan) -> DraftPart | None:
    """Return what computes a program's drafts; None if it has no ``draft`` method.

    Raises:
        ProgramError: as `hidden_tail`; there is no ``embed`` method, or its hidden states are of
            another width; the method keeps the hidden states that it is given in no state, or in
            more than one, or reads them elsewhere; another method has a state of its.
    """
    tail, method = hidden_tail(plan), plan.draft
    if method is None:
        return None
    width = method.values[HIDDEN].width
    if tail is None or tail.width != width:
        got = "none" if tail is None else f"those of {tail.width} columns"
        raise ProgramError(
            f"method draft: reads hidden states of {width} columns, the program gives {got}"
        )
    readers = [op for op in method.instructions if HIDDEN in op.inputs]
    kept = [op for op in method.instructions if op.op == "previous"]
    if len(kept) != 1 or readers != kept:
        raise ProgramError(
            "method draft: expected one instruction, and a previous, to read the hidden states"
        )
    own = {op.state for op in method.instructions if op.state >= 0}
    others = [m for m in plan.methods.values() if m is not method]
    shared = own & {op.state for other in others for op in other.instructions}
    if shared:
        raise ProgramError(
            f"method draft: state {plan.states[min(shared)].name} is another method's too"
        )
    first = len(plan.language_model.values) + len(tail.values)
    shift = first - HIDDEN - 1

    def number(old: int) -> int:
        if old == HIDDEN:
            return tail.output
        return old if old < HIDDEN else old + shift

    instructions = tuple(
        replace(op, inputs=tuple(map(number, op.inputs)), outputs=tuple(map(number, op.outputs)))
        for op in method.instructions
    )
    logits, output = map(number, method.outputs)
    values = method.values[HIDDEN + 1 :]
    return DraftPart(values, instructions, tail.output, logits, output)


def _meaning(op: Instruction) -> tuple[object, ...]:
    """Return all of an instruction but where it came from."""
    return (op.op, op.inputs, op.outputs, op.weights, op.state, op.attributes)


def _check_shared(model: Method, method: Method, index: int) -> None:
    """Check that instruction ``index`` of an ``embed`` method is the language model's own."""
    mine = method.instructions[index]
    if index < len(model.instructions):
        other = model.instructions[index]
        if _meaning(mine) == _meaning(other) and all(
            method.values[number] == model.values[number] for number in mine.outputs
        ):
            return
    raise ProgramError(
        f"method embed, instruction {index} ({mine.op}): computes for all tokens what the language "
        "model does not, expected the same instructions up to the wanted rows"
    )
