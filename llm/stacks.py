"""Stacks of experts' matrices: one parameter of the module and one weight of the plan, but a matrix
for each expert in checkpoints, so that no more than one expert is ever read at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping

Shape = tuple[int, ...]

_MEMBER = re.compile(r"\.experts\.\d+\.(\w+)\.weight")


def member(stack: str, expert: int) -> str:
    """Return the name of the matrix of one expert: of ``mlp.experts.up_proj`` and the expert 7 it
    is ``mlp.experts.7.up_proj.weight``."""
    owner, _, name = stack.rpartition(".")
    return f"{owner}.{expert}.{name}.weight"


def members(name: str, shape: Shape) -> Mapping[str, Shape]:
    """Return the parameters that a checkpoint holds for one of the module: of a stack [E, N, K] its
    E matrices [N, K] by name, of another that one alone."""
    if len(shape) != 3:
        return {name: shape}
    return {member(name, expert): shape[1:] for expert in range(shape[0])}


def stack_of(parameter: str) -> str:
    """Return the stack that a checkpoint's parameter is a member of; another is its own."""
    return _MEMBER.sub(r".experts.\1", parameter)
