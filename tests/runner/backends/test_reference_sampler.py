from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edge_llm.runner.backends.reference_sampler import (
    NON_FINITE,
    NONE_ALLOWED,
    choose,
    randoms,
    raw_logprobs,
)
from edge_llm.runner.executor import RowSampler
from edge_llm.runner.sampling import SamplingParams

LOGITS = np.array([1.0, 3.0, 2.0, 3.0, -1.0, 0.5], np.float32)


def sampler(
    history: tuple[int, ...] = (),
    prompt_length: int = 0,
    *,
    seed: int = 0,
    counter: int = 0,
    allowed: int | None = None,
    **params: object,
) -> RowSampler:
    return RowSampler(
        params=SamplingParams(**params),
        seed=seed,
        counter=counter,
        history=np.array(history, np.int32),
        prompt_length=prompt_length,
        allowed=None if allowed is None else np.array([allowed], np.uint32),
    )


def greedy(*args: object, **options: object) -> int | str:
    return choose(LOGITS, sampler(*args, temperature=0.0, **options), len(LOGITS))


def drawn(logits: np.ndarray = LOGITS, count: int = 1200, **params: object) -> np.ndarray:
    """How often each id is drawn, as a share."""
    ids = [choose(logits, sampler(counter=i, **params), len(logits)) for i in range(count)]
    return np.bincount(np.array(ids), minlength=len(logits)) / count


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def test_the_random_numbers_are_philox() -> None:
    known = (0x6627E8D5E169C58D, 0xBC57AC4C9B00DBD8)
    assert randoms(0, 0) == tuple((bits >> 11) * 2.0**-53 for bits in known)
    pairs = [randoms(seed, counter) for seed in (1, 2**63) for counter in range(250)]
    values = [value for pair in pairs for value in pair]
    assert len(set(values)) == 1000
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 0.1
    assert 0.0 <= min(values) < 0.01 < 0.99 < max(values) < 1.0
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)


def test_greedy_takes_the_lowest_id_of_the_highest() -> None:
    assert greedy() == 1
    assert greedy(logit_bias={3: 0.5}) == 3
    assert greedy(allowed=0b010101) == 2
    assert choose(LOGITS, sampler(temperature=0.0), 1) == 0


def test_penalties() -> None:
    assert greedy((1,), 1, repetition_penalty=2.0) == 3  # 3 / 2 < 3
    assert greedy((1, 3), 2, repetition_penalty=2.0) == 2
    assert greedy((1, 3), 2, presence_penalty=2.0) == 1  # of the output alone
    assert greedy((1, 3), 1, presence_penalty=2.0) == 1
    assert greedy((0, 1), 1, presence_penalty=2.0) == 3
    assert greedy((0, 1, 1, 3), 1, frequency_penalty=0.4) == 3
    negative = np.array([-1.0, -1.5], np.float32)
    assert choose(negative, sampler((0,), 1, temperature=0.0, repetition_penalty=2.0), 2) == 1


def test_draws_follow_the_distribution() -> None:
    np.testing.assert_allclose(drawn(), softmax(LOGITS), atol=0.06)
    np.testing.assert_allclose(drawn(temperature=0.5), softmax(LOGITS / 0.5), atol=0.06)


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 2, 3]),
        ({"top_p": 0.0}, [1]),
        ({"top_p": 0.5}, [1, 3]),
        ({"min_p": 0.3}, [1, 2, 3]),  # e^-1 is 0.37 of the likeliest
        ({"top_k": 3, "top_p": 0.8}, [1, 3]),  # over what top-k left
    ],
)
def test_filters_keep_the_beginning_of_the_ranking(
    params: dict[str, float], kept: list[int]
) -> None:
    expected = np.zeros(len(LOGITS))
    expected[kept] = softmax(LOGITS[kept])
    np.testing.assert_allclose(drawn(**params), expected, atol=0.06)


def test_typicality_keeps_what_is_as_surprising_as_expected() -> None:
    """By hand: of shares 0.6, 0.2, 0.1, 0.1 the entropy is 1.09, the surprises are 0.51, 1.61 and
    2.30: the likeliest is no more typical than the second."""
    logits = np.log(np.array([0.1, 0.6, 0.2, 0.1], np.float32))
    for typical_p, kept in ((0.0, [2]), (0.2, [2]), (0.5, [1, 2]), (0.81, [0, 1, 2]), (1.0, None)):
        expected = np.exp(logits.astype(np.float64))
        if kept is not None:
            expected[[i for i in range(4) if i not in kept]] = 0
        np.testing.assert_allclose(
            drawn(logits, typical_p=typical_p), expected / expected.sum(), atol=0.06
        )
    # min-p looks at the likeliest of what is left, top-p at what they left together.
    np.testing.assert_allclose(drawn(logits, typical_p=0.1, min_p=0.5), [0, 0, 1, 0])


def test_xtc_excludes_all_likely_tokens_but_the_last() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.2, 0.2], np.float32))
    raw = np.exp(logits.astype(np.float64))
    expected = np.array([0.1, 0, 0, 0.2]) / 0.3  # of the two equal ones the second is the last
    np.testing.assert_allclose(
        drawn(logits, xtc_probability=1.0, xtc_threshold=0.15), expected, atol=0.06
    )
    half = (expected + raw) / 2
    np.testing.assert_allclose(
        drawn(logits, xtc_probability=0.5, xtc_threshold=0.15), half, atol=0.06
    )
    for threshold in (0.3, 0.6):  # fewer than two are likely
        np.testing.assert_allclose(
            drawn(logits, xtc_probability=1.0, xtc_threshold=threshold), raw, atol=0.06
        )
    np.testing.assert_allclose(
        drawn(logits, xtc_probability=1.0, xtc_threshold=0.0), [1, 0, 0, 0], atol=0.06
    )


DRY = {"temperature": 0.0, "dry_multiplier": 1.0, "dry_base": 2.0}


@pytest.mark.parametrize(
    ("history", "params", "penalties"),
    [
        ([1, 2, 3, 1, 2], {}, {3: 1.0}),  # a repetition of two: 1 * 2^0
        ([1, 2, 3, 1, 2], {"dry_allowed_length": 1}, {3: 2.0}),
        ([1, 2, 3, 1, 2], {"dry_allowed_length": 3}, {}),
        ([0, 1, 2, 3, 0, 1, 2], {}, {3: 2.0}),
        ([2, 2, 2, 2], {}, {2: 2.0}),  # repetitions may overlap
        ([0, 1, 2, 3, 1, 2, 4, 0, 1, 2], {}, {3: 2.0, 4: 1.0}),
        ([0, 1, 2, 3, 0, 1, 2], {"breakers": [1]}, {}),
        ([1, 2, 0, 2, 0, 3, 2, 0], {"breakers": [1]}, {2: 1.0, 3: 1.0}),
        ([1, 2, 3, 1, 2], {"breakers": [3]}, {}),  # a breaker is never penalized
        ([1, 2, 3, 1, 2], {"dry_penalty_last_n": 4}, {}),
        ([1, 2, 3, 1, 2], {"dry_penalty_last_n": 5}, {3: 1.0}),
        ([1, 2, 3, 1, 2], {"dry_penalty_last_n": 0}, {}),
        ([1, 2, 3, 1, 2], {"dry_multiplier": 0.5}, {3: 0.5}),
        ([1, 2], {}, {}),
        ([], {}, {}),
    ],
)
def test_dry_penalizes_what_goes_on_with_a_repetition(
    history: list[int], params: dict[str, object], penalties: dict[int, float]
) -> None:
    """Each id is raised in turn until it is chosen, which tells what it lost."""
    breakers = np.array([sum(1 << i for i in params.pop("breakers", []))], np.uint32)
    lost = {}
    for token in range(5):
        for quarters in range(-1, 20):
            logits = np.full(5, -0.125, np.float32)
            logits[token] = quarters / 4
            row = sampler(tuple(history), 0, **(DRY | params))
            others = [i for i in range(5) if i != token]
            logits[others] -= 100.0
            logits[(token + 1) % 5] = -0.125 + penalties.get((token + 1) % 5, 0.0)
            if choose(logits, replace(row, breakers=breakers), 5) == token:
                lost[token] = quarters / 4
                break
    assert {token: value for token, value in lost.items() if value} == penalties


def test_a_long_repetition_costs_a_finite_penalty() -> None:
    for history in ([2] * 500, [2, 1] * 250):
        row = sampler(tuple(history), 0, temperature=1.0, dry_multiplier=1.0)
        assert isinstance(choose(LOGITS, row, len(LOGITS)), int)
    row = sampler((0,) * 500, 0, temperature=1.0, dry_multiplier=1.0)
    assert choose(LOGITS[:1], row, 1) == 0  # there is nothing else


def test_rows_that_cannot_be_sampled() -> None:
    for bad in (np.nan, np.inf):
        row = LOGITS.copy()
        row[5] = bad
        assert choose(row, sampler(), 5) == NON_FINITE
    nothing = np.full(4, -np.inf, np.float32)
    assert choose(nothing, sampler(), 4) == NON_FINITE
    assert greedy(allowed=0) == NONE_ALLOWED


def test_logprobs_are_of_the_raw_logits() -> None:
    found = raw_logprobs(LOGITS, 4, 2, len(LOGITS))
    probabilities = softmax(LOGITS.astype(np.float64))
    assert found.logprob == pytest.approx(math.log(probabilities[4]))
    assert [i for i, _ in found.top] == [1, 3]
    assert found.top[0][1] == pytest.approx(math.log(probabilities[1]))
    both = raw_logprobs(LOGITS, 1, 20, 2).top
    assert [i for i, _ in both] == [1, 0]  # only these two can be sampled
    assert both[0] == found.top[0]


def test_a_target_is_what_comes_back() -> None:
    row = replace(sampler(temperature=0.0), target=4)
    assert choose(LOGITS, row, len(LOGITS)) == 4
    assert choose(np.where(LOGITS < 0, -np.inf, LOGITS), row, len(LOGITS)) == NON_FINITE
