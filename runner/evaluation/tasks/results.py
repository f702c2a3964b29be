"""What a task finds out about each of its items, and the figures of all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_llm.errors import RequestError
from edge_llm.runner.evaluation.quality import Estimate


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one item.

    Attributes:
        id: of the item, which no other of the task has.
        group: the items that it is counted with: a subject, a category.
        correct: whether the answer is right.
        answer: what the model said, in a form to be read.
        reason: why it is wrong; empty if it is right.
        share: how much of the answer is right, 0 to 1, where a task counts that.
    """

    id: str
    group: str
    correct: bool
    answer: str
    reason: str = ""
    share: float | None = None

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Result:
        """Return what `record` was made of.

        Raises:
            RequestError: it is no such record.
        """
        try:
            result = cls(**record)
        except TypeError as error:
            raise RequestError(f"a record is not of this form: {error}") from error
        kinds = {"id": str, "group": str, "correct": bool, "answer": str, "reason": str}
        for name, kind in kinds.items():
            if not isinstance(getattr(result, name), kind):
                raise RequestError(f"{name} of a record is not of type {kind.__name__}")
        if not isinstance(result.share, float | int | None):
            raise RequestError("share of a record is no number")
        return result


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of a task.

    Attributes:
        items: how many were answered.
        accuracy: the share that is right; its standard error is that of a mean of independent
            items, the root of p (1 - p) / (n - 1), None for a single one.
        share: the mean of `Result.share`, where the task counts that.
        groups: accuracy and number of items of each group, by name.
    """

    items: int
    accuracy: Estimate
    share: Estimate | None
    groups: Mapping[str, tuple[float, int]]


def score_of(results: Sequence[Result]) -> Score:
    """Return the figures of at least one result."""
    shares = [result.share for result in results if result.share is not None]
    groups: dict[str, list[bool]] = {}
    for result in results:
        groups.setdefault(result.group, []).append(result.correct)
    return Score(
        items=len(results),
        accuracy=_mean([float(result.correct) for result in results]),
        share=_mean(shares) if shares else None,
        groups={name: (sum(found) / len(found), len(found)) for name, found in groups.items()},
    )


def check_ids(ids: Iterable[str]) -> None:
    """Check that items can be told apart.

    Raises:
        RequestError: two have the same id.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise RequestError(f"two items have the id {name[:100]!r}")
        seen.add(name)


def _mean(values: Sequence[float]) -> Estimate:
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count))
