"""The hidden states of a program: what its ``embed`` method computes beyond its language model.

A runner has one set of states, whichever method fills them. So the two methods compute the same for
all tokens, and only what each makes of the wanted rows is its own: that part of ``embed`` is run
beside the language model, in the same step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_llm.errors import ProgramError
from edge_llm.program.plan import Instruction, Method, Plan, Value, matrix


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
