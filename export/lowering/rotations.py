"""Find where orthogonal matrices can be folded into a model without a text (QuaRot, Ashkboos et al.
2024, arXiv:2404.00456; SpinQuant, Liu et al. 2024, arXiv:2405.16406, whose R1 and R2 these are).

Attention takes means of values, channel by channel, and one matrix reads them. So the values of
each head may be multiplied with an orthogonal matrix, in the rows that make them, and so may the
columns that read them: the function stays. Large channels are spread over all of a head, so that
groups of columns have numbers of like size. Of the residual stream the same is told in residual.py.

Where that is so is read off the plan, as for factors (folds.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from edge_llm.errors import ConfigError
from edge_llm.export.lowering.folds import find_folds
from edge_llm.export.lowering.residual import find_residual
from edge_llm.program.hadamard import least_order
from edge_llm.program.plan import Plan


@dataclass(frozen=True, slots=True)
class Turn:
    """The change of one parameter, or of each member of a stack: of its ``rows`` (of a vector the
    last dimension) those from a first to an end, in runs of a size, are multiplied with the matrix
    of that size, and so is each run of ``columns`` columns, which are multiplied with the parameter
    ``norm`` first; 0 and None: they are not. Norms that are there are all ``ones`` then."""

    rows: tuple[int, int, int] | None = None  # first, end, size
    columns: int = 0
    norm: str | None = None
    ones: bool = False


@dataclass(frozen=True, slots=True)
class Rotations:
    """``turns`` by parameter, ``notes`` about them in words, and whether all ``hidden`` states are
    rotated, those that the head reads included."""

    turns: Mapping[str, Turn]
    notes: tuple[str, ...]
    hidden: bool = False

    def tied(self, shared: Mapping[str, str]) -> Mapping[str, str]:
        """Return those of the ``shared`` parameters that still have the values of another one."""
        return {
            name: other
            for name, other in shared.items()
            if name not in self.turns and other not in self.turns
        }


NONE = Rotations({}, ())


def find_rotations(plan: Plan, rotate: str | None, kept: Collection[str]) -> Rotations:
    """Return what a recipe's ``rotate`` asks for; ``plan`` as for `find_folds`. ``kept`` are
    parameters and stacks whose numbers cannot change.

    Raises:
        ConfigError: something of the model is in the way, or it would change what is ``kept``.
    """
    if rotate is None:
        return NONE
    found = _values(plan, needed=rotate == "values")
    if rotate == "all":
        found = _with_residual(found, plan)
    first = next((name for name in found.turns if name in kept), None)
    if first is not None:
        raise ConfigError(
            f"rotate is {rotate}, but {first} keeps the checkpoint's own integers",
            hint="requantize=true in the recipe rounds them anew",
        )
    return found


def _values(plan: Plan, *, needed: bool) -> Rotations:
    """Return the rotations of values; none is an error where one is ``needed``."""
    attentions = sum(op.op in ("attention", "attend") for op in plan.language_model.instructions)
    turns: dict[str, Turn] = {}
    count = 0
    for fold in find_folds(plan, lambda name: True):
        size = fold.head_dim
        if not size or least_order(size) is None:
            continue
        count += 1
        turns |= dict.fromkeys(fold.consumers, Turn(columns=size))
        for producer in fold.producers:
            end = producer.begin + fold.count
            turns[producer.parameter] = Turn(rows=(producer.begin, end, size))
    if needed and not count:
        raise ConfigError(
            f"rotate is values, but none of the model's {attentions} attentions takes them "
            "straight from one matrix to others, in heads that a Hadamard matrix has a size for"
        )
    return Rotations(turns, (f"values rotated in {count} of {attentions} attentions",))


def _with_residual(found: Rotations, plan: Plan) -> Rotations:
    """Return the rotations that were ``found`` with that of the residual stream."""
    residual = find_residual(plan)
    width, obstacle = residual.width, residual.obstacle
    if obstacle is None and least_order(width) is None:
        obstacle = f"its width: there is no Hadamard matrix of {width} columns"
    if obstacle is not None:
        raise ConfigError(
            f"rotate is all, but something is in the way of the residual stream: {obstacle}",
            hint="rotate=values leaves the stream as it is",
        )
    turns = dict(found.turns)
    for name in residual.writers:
        turns[name] = replace(turns.get(name, Turn()), rows=(0, width, width))
    for name, norm in residual.readers:
        turns[name] = replace(turns.get(name, Turn()), columns=width, norm=norm)
    turns |= dict.fromkeys(residual.norms, Turn(ones=True))
    notes = (
        *found.notes,
        f"residual stream of {width} rotated, weights of {len(residual.norms)} norms in what reads "
        "them; no vectors (the method `embed`), since hidden states are others",
    )
    return Rotations(turns, notes, hidden=True)
