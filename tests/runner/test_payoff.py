"""Drafts are checked where it pays, by measured steps. No clock runs here."""

from __future__ import annotations

import random

import pytest

from edge_llm.runner.engine.drafters import AutoDrafter
from edge_llm.runner.engine.payoff import Payoff


def measured(rise: float, sizes: range = range(1, 25), rounds: int = 40) -> Payoff:
    """Return what is learned from steps whose rows each take ``rise`` of the first row's time."""
    payoff = Payoff()
    for _ in range(rounds):
        for tokens in sizes:
            payoff.record(tokens, 1e-3 * (1 + rise * (tokens - 1)))
    return payoff


def length(payoff: Payoff, chance: float, neighbours: int = 0, most: int = 16) -> int:
    payoff.begin(1 + neighbours)
    return payoff.length(chance, most)


@pytest.mark.parametrize("neighbours", [0, 3])
def test_likely_drafts_are_long_and_unlikely_ones_are_not_checked(neighbours: int) -> None:
    payoff = measured(0.05)
    lengths = [length(payoff, chance, neighbours) for chance in (0.0, 0.05, 0.5, 0.9, 1.0)]
    assert lengths == sorted(lengths)
    assert lengths[:2] == [0, 0]
    assert lengths[-1] == 16
    assert 0 < lengths[2] < lengths[3]


def test_dear_rows_make_drafts_short() -> None:
    cheap, dear, useless = (length(measured(rise), 0.7) for rise in (0.03, 0.4, 1.0))
    assert cheap > dear > useless == 0


def test_what_is_not_known_yet_is_tried() -> None:
    payoff = Payoff()
    assert length(payoff, 0.8) > 0
    payoff.record(1, 1e-3)
    first = length(payoff, 0.8)
    assert first > 0
    payoff.record(1 + first, 5e-3)  # much dearer than thought
    assert length(payoff, 0.8) < first


def test_what_was_a_stall_is_forgotten() -> None:
    payoff = measured(0.05)
    for _ in range(30):
        for tokens in range(2, 25):
            payoff.record(tokens, 1.0)
    assert length(payoff, 0.7) == 0
    for _ in range(3000):
        payoff.record(1, 1e-3)
    assert length(payoff, 0.7) > 0


def test_drafts_of_a_step_share_it() -> None:
    payoff = measured(0.2)
    payoff.begin(2)
    first, second = payoff.length(0.7, 16), payoff.length(0.7, 16)
    assert first > 0
    assert second <= first


def run(drafter: AutoDrafter, payoff: Payoff, text: list[int], start: int) -> tuple[int, int]:
    """Let the drafter follow a text from ``start`` on; return how many of its tokens were checked,
    and were right."""
    checked = right = 0
    end = start
    while end < len(text):
        payoff.begin(1)
        draft = list(drafter.propose(text[:end], len(text) - end))
        good = 0
        while good < len(draft) and draft[good] == text[end + good]:
            good += 1
        if draft:
            drafter.accept(len(draft), good)
        checked, right = checked + len(draft), right + good
        end += good + 1
    return checked, right


def test_a_text_that_repeats_is_drafted_and_noise_is_not() -> None:
    source = random.Random(5)
    payoff = measured(0.05)
    passage = source.choices(range(1000), k=200)
    checked, right = run(AutoDrafter(payoff), payoff, passage + passage, 200)
    assert right > 170
    assert right > 0.9 * checked
    noise = source.choices(range(40), k=3000)  # pairs repeat, and nothing follows from them
    checked, _ = run(AutoDrafter(payoff), payoff, noise, 10)
    assert checked < 300


def test_it_begins_again_when_the_text_repeats_again() -> None:
    source = random.Random(6)
    payoff = measured(0.05)
    noise = source.choices(range(40), k=1000)
    passage = source.choices(range(40, 1000), k=100)
    drafter = AutoDrafter(payoff)
    text = passage + noise + passage + passage
    _, before = run(drafter, payoff, text[: 100 + len(noise)], 100)
    _, right = run(drafter, payoff, text, 100 + len(noise))
    assert right > before + 100


class Other:
    """A drafter that always proposes one token."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def propose(self, tokens: object, most: int) -> list[int]:
        return [7]

    def accept(self, drafted: int, accepted: int) -> None:
        self.told.append((drafted, accepted))


def test_another_drafter_is_asked_where_nothing_matches() -> None:
    payoff, other = measured(0.05), Other()
    drafter = AutoDrafter(payoff, other)
    payoff.begin(1)
    assert list(drafter.propose([1, 2, 3], 4)) == [7]
    drafter.accept(1, 1)
    assert other.told == [(1, 1)]
    payoff.begin(1)
    passage = list(range(20, 40))
    draft = drafter.propose([*passage, *passage[:15]], 4)
    assert list(draft) == passage[15:19]
    drafter.accept(4, 4)
    assert other.told == [(1, 1)]
