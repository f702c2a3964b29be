"""Find where orthogonal matrices can be folded into a model without a text (QuaRot, Ashkboos et al.
2024, arXiv:2404.00456; SpinQuant, Liu et al. 2024, arXiv:2405.16406, whose R2 this is).

Attention takes means of values, channel by channel, and one matrix reads them. So the values of
each head may be multiplied with an orthogonal matrix, in the rows that make them, and so may the
columns that read them: the function stays. Large channels are spread over all of a head, so that
groups of columns have numbers of like size.

Where that is so is read off the plan, as for factors (folds.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edge_llm.errors import ConfigError
from edge_llm.export.lowering.folds import find_folds
from edge_llm.program.hadamard import least_order
from edge_llm.program.plan import Plan


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of one parameter: of its ``rows`` (of a vector its elements) those from a first
    to an end, in runs of a size, are multiplied with the matrix of that size, and so is each run of
    ``columns`` columns; 0 and None: none are."""

    rows: tuple[int, int, int] | None = None  # first, end, size
    columns: int = 0


@dataclass(frozen=True, slots=True)
class Rotations:
    """``turns`` by parameter, and ``notes`` about them in words."""

    turns: Mapping[str, Turn]
    notes: tuple[str, ...]


NONE = Rotations({}, ())


def find_rotations(plan: Plan, kept: Collection[str]) -> Rotations:
    """Return the rotations of values; ``plan`` as for `find_folds`. ``kept`` are parameters whose
    numbers cannot change.

    Raises:
        ConfigError: there is no place for one, or it would change what is ``kept``.
    """
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
    if not count:
        raise ConfigError(
            f"rotate is values, but none of the model's {attentions} attentions takes them "
            "straight from one matrix to others, in heads that a Hadamard matrix has a size for"
        )
    check_kept("values", turns, kept)
    return Rotations(turns, (f"values rotated in {count} of {attentions} attentions",))


def check_kept(rotate: str, turns: Mapping[str, Turn], kept: Collection[str]) -> None:
    """Check that no parameter is rotated whose numbers cannot change.

    Raises:
        ConfigError: one is.
    """
    first = next((name for name in turns if name in kept), None)
    if first is not None:
        raise ConfigError(
            f"rotate is {rotate}, but {first} keeps the checkpoint's own integers",
            hint="requantize=true in the recipe rounds them anew",
        )
