"""Figures of results, and results as records."""

from __future__ import annotations

import math

import pytest

from edge_llm.errors import RequestError
from edge_llm.runner.evaluation.tasks.results import Result, score_of


def results(*correct: bool) -> list[Result]:
    return [
        Result(str(number), "odd" if number % 2 else "even", each, "")
        for number, each in enumerate(correct)
    ]


def test_a_score() -> None:
    score = score_of(results(True, False, True, True))
    assert score.items == 4
    assert score.accuracy.value == 0.75
    assert score.accuracy.error == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert score.groups == {"even": (1.0, 2), "odd": (0.5, 2)}
    assert score.share is None


def test_one_item_has_no_error() -> None:
    assert score_of(results(True)).accuracy.error is None


def test_shares() -> None:
    found = [Result("a", "g", True, "", share=1.0), Result("b", "g", False, "", share=0.5)]
    share = score_of(found).share
    assert share is not None
    assert (share.value, share.error) == (0.75, pytest.approx(0.25))


def test_a_record_and_back() -> None:
    result = Result("a", "g", False, "said", "wrong", 0.25)
    assert Result.of(result.record()) == result


@pytest.mark.parametrize("change", [{"correct": 1}, {"id": None}, {"share": "x"}, {"more": 1}])
def test_what_is_no_record(change: dict[str, object]) -> None:
    with pytest.raises(RequestError, match="record"):
        Result.of({**Result("a", "g", True, "").record(), **change})
