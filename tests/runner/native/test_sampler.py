"""The sampler against a numpy oracle: the same id for the same random number, the distribution of
many draws, every filter and penalty, log-probabilities, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_llm.errors import NativeError
from edge_llm.runner.backends.reference_sampler import randoms
from edge_llm.runner.engine.constraints import mask_of
from edge_llm.runner.executor import RowSampler, StepResult
from edge_llm.runner.sampling import SamplingParams

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def sampler(
    *,
    seed: int = 0,
    counter: int = 0,
    history: Sequence[int] = (),
    prompt_length: int = 0,
    allowed: Sequence[int] | None = None,
    breakers: Sequence[int] | None = None,
    vocab: int = 0,
    **params: Any,
) -> RowSampler:
    return RowSampler(
        params=SamplingParams(**params),
        seed=seed,
        counter=counter,
        history=np.array(history, np.int32),
        prompt_length=prompt_length,
        allowed=None if allowed is None else mask_of(allowed, vocab),
        breakers=None if breakers is None else mask_of(breakers, vocab),
    )


def adjusted(logits: Float32, row: RowSampler, sampleable: int) -> Float32:
    """Bias, penalties, DRY and mask, rounded as the sampler rounds."""
    out = logits.copy()
    for token, bias in row.params.logit_bias.items():
        out[token] += np.float32(bias)
    repetition = np.float32(row.params.repetition_penalty)
    for token in set(row.history.tolist()):
        out[token] = out[token] / repetition if out[token] > 0 else out[token] * repetition
        count = int((row.history[row.prompt_length :] == token).sum())
        if count:
            out[token] -= np.float32(row.params.presence_penalty)
            out[token] -= np.float32(row.params.frequency_penalty) * np.float32(count)
    for token, length in repetitions(row).items():
        exponent = length - row.params.dry_allowed_length
        if row.params.dry_multiplier > 0 and exponent >= 0:
            base = np.float64(np.float32(row.params.dry_base))
            penalty = np.float64(np.float32(row.params.dry_multiplier)) * base**exponent
            out[token] -= np.float32(min(penalty, 1e30))
    if row.allowed is not None:
        bits = np.unpackbits(row.allowed.view(np.uint8), bitorder="little")[: len(out)]
        out[bits == 0] = -np.inf
    out[sampleable:] = -np.inf
    return out


def repetitions(row: RowSampler) -> dict[int, int]:
    """How long a repetition each id would go on with."""
    ids = row.history.tolist()
    if row.params.dry_penalty_last_n >= 0:
        ids = ids[len(ids) - min(len(ids), row.params.dry_penalty_last_n) :]
    bits = np.zeros(10**5, np.uint8)
    if row.breakers is not None:
        bits = np.unpackbits(row.breakers.view(np.uint8), bitorder="little")
    longest: dict[int, int] = {}
    for place, token in enumerate(ids):
        if bits[token]:
            continue
        for length in range(1, place + 1):
            end = ids[len(ids) - length :]
            if ids[place - length : place] != end or bits[end].any():
                break
            longest[token] = max(length, longest.get(token, 0))
    return longest


def distribution(logits: Float32, row: RowSampler, sampleable: int) -> Float64:
    """Probabilities by id, by sorting: temperature, top-k, typicality, min-p, top-p, XTC."""
    params = row.params
    scores = adjusted(logits, row, sampleable)
    ranking = np.argsort(-scores, kind="stable")  # ties by id
    if params.temperature == 0:
        return np.asarray(np.eye(len(scores))[ranking[0]])
    z = ((scores - scores.max()) / np.float32(params.temperature)).astype(np.float64)
    weights = np.exp(z)[ranking]
    if params.top_k:
        weights[params.top_k :] = 0
    if params.typical_p < 1:
        possible = weights > 0
        shares = weights[possible] / weights.sum()
        entropy = -(shares * np.log(shares)).sum()
        surprise = np.full(len(weights), np.inf)
        surprise[possible] = np.abs(-np.log(shares) - entropy)
        # Equal logits are neighbours in the ranking, in the order of their ids.
        order = np.argsort(np.round(surprise, 9), kind="stable")
        typical = float(np.float32(params.typical_p))
        reached = np.cumsum(weights[order]) >= typical * weights.sum() * (1 - 1e-12)
        weights[order[int(reached.argmax()) + 1 :]] = 0
    weights[weights < params.min_p * weights.max() * (1 - 1e-7)] = 0
    top_p = float(np.float32(params.top_p))
    reached = (np.cumsum(weights) >= top_p * weights.sum() * (1 - 1e-12)) & (weights > 0)
    weights[int(reached.argmax()) + 1 :] = 0
    coin = randoms(row.seed, row.counter)[1]
    if coin < float(np.float32(params.xtc_probability)):
        least = float(np.float32(params.xtc_threshold)) * weights.sum()
        likely = np.flatnonzero((weights > 0) & (weights >= least * (1 - 1e-9)))
        weights[likely[:-1]] = 0
    out = np.zeros(len(scores))
    out[ranking] = weights / weights.sum()
    return out


def sample(
    run_plan: Any,
    plan_builder: Any,
    logits: Float32,
    rows: Sequence[RowSampler | None],
    context: int = 64,
    **options: Any,
) -> StepResult:
    """One step in which row r samples from ``logits[r]``."""
    builder = plan_builder(context=max(context, len(logits)))
    runner = run_plan(builder, builder.activations(logits), **options)
    result = runner.step({0: range(len(logits))}, samplers=rows, want_logits=False)
    assert isinstance(result, StepResult)
    return result


def make_logits(rows: int, vocab: int, seed: int, spread: float = 3.0) -> Float32:
    """Rounded to quarters, so that ties are frequent."""
    rng = np.random.default_rng(seed)
    return (np.round(rng.standard_normal((rows, vocab)) * spread * 4) / 4).astype(np.float32)


def random_row(rng: np.random.Generator, vocab: int) -> RowSampler:
    def maybe(value: float, neutral: float) -> float:
        return value if rng.random() < 0.5 else neutral

    few = int(rng.choice([2, 3, 10, vocab]))  # ids, so that there are repetitions
    history = rng.integers(0, min(few, vocab), rng.integers(0, 40)).tolist()
    return sampler(
        seed=int(rng.integers(2**63)),
        counter=int(rng.integers(2**40)),
        history=history,
        prompt_length=int(rng.integers(0, len(history) + 1)),
        allowed=rng.permutation(vocab)[: vocab // 2 + 1].tolist() if rng.random() < 0.3 else None,
        vocab=vocab,
        temperature=float(rng.choice([0.0, 0.3, 1.0, 2.0])),
        top_k=int(maybe(int(rng.integers(1, 60)), 0)),
        top_p=maybe(float(rng.choice([0.0, 0.5, 0.95, 0.9999])), 1.0),
        min_p=maybe(float(rng.choice([0.01, 0.2, 1.0])), 0.0),
        typical_p=maybe(float(rng.choice([0.0, 0.3, 0.9, 0.999])), 1.0),
        xtc_probability=maybe(float(rng.choice([0.5, 1.0])), 0.0),
        xtc_threshold=float(rng.choice([0.0, 0.03, 0.1, 0.4])),
        dry_multiplier=maybe(float(rng.choice([0.25, 1.0, 7.0])), 0.0),
        dry_base=float(rng.choice([1.0, 1.75, 4.0])),
        dry_allowed_length=int(rng.integers(1, 5)),
        dry_penalty_last_n=int(rng.choice([-1, -1, 0, 1, 10, 100])),
        breakers=rng.integers(0, min(few, vocab), 2).tolist() if rng.random() < 0.4 else None,
        repetition_penalty=maybe(1.3, 1.0),
        presence_penalty=maybe(0.5, 0.0),
        frequency_penalty=maybe(-0.25, 0.0),
        logit_bias={int(rng.integers(vocab)): 2.5} if rng.random() < 0.5 else {},
        top_logprobs=int(rng.integers(0, 21)),
    )


def assert_same_result(got: StepResult, expected: StepResult) -> None:
    np.testing.assert_array_equal(got.ids, expected.ids)
    assert list(got.logprobs) == list(expected.logprobs)
    assert list(got.errors) == list(expected.errors)


@pytest.mark.parametrize(("vocab", "sampleable"), [(3, 2), (61, 61), (1100, 1090), (5000, 4999)])
def test_same_id_as_the_oracle(
    run_plan: Any, plan_builder: Any, vocab: int, sampleable: int
) -> None:
    count = 120
    rng = np.random.default_rng(vocab)
    logits = make_logits(count, vocab, vocab)
    rows = [random_row(rng, vocab) for _ in range(count)]
    expected = sample(run_plan, plan_builder, logits, rows, isa="scalar", sampleable=sampleable)
    for threads in (1, 2):
        got = sample(run_plan, plan_builder, logits, rows, threads=threads, sampleable=sampleable)
        assert_same_result(got, expected)
    for r, row in enumerate(rows):
        weights = np.cumsum(distribution(logits[r], row, sampleable))
        wanted = int(np.searchsorted(weights, randoms(row.seed, row.counter)[0], side="right"))
        assert expected.ids[r] == wanted, row


def test_rows_do_not_touch_each_other(run_plan: Any, plan_builder: Any) -> None:
    rng = np.random.default_rng(0)
    logits = make_logits(20, 300, 1)
    rows: list[RowSampler | None] = [random_row(rng, 300) for _ in range(20)]
    together = sample(run_plan, plan_builder, logits, rows, threads=2)
    for r in range(20):
        alone = sample(run_plan, plan_builder, logits[r : r + 1], rows[r : r + 1])
        assert alone.ids[0] == together.ids[r]
        assert alone.logprobs[0] == together.logprobs[r]
    rows[3] = None
    some = sample(run_plan, plan_builder, logits, rows)
    assert some.ids[3] == -1
    np.testing.assert_array_equal(np.delete(some.ids, 3), np.delete(together.ids, 3))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"top_k": 12, "top_p": 0.9, "min_p": 0.02, "temperature": 1.5},
        {"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": 0.5},
        {"logit_bias": {3: 4.0, 5: -100.0}},
    ],
    ids=str,
)
def test_draws_follow_the_distribution(
    run_plan: Any, plan_builder: Any, params: dict[str, Any]
) -> None:
    """Pearson's chi-square of 4096 draws that differ in the counter alone."""
    vocab, step, steps = 40, 512, 8
    logits = np.random.default_rng(5).standard_normal(vocab).astype(np.float32) * 2
    history = [1, 2, 3, 3, 3, 9]

    def row(counter: int) -> RowSampler:
        return sampler(seed=11, counter=counter, history=history, prompt_length=2, **params)

    builder = plan_builder(context=step * steps)
    runner = run_plan(builder, builder.activations(np.tile(logits, (step, 1))), blocks=64)
    seen = np.zeros(vocab)
    for s in range(steps):
        rows = [row(s * step + r) for r in range(step)]
        ids = runner.step({0: range(step)}, samplers=rows, want_logits=False).ids
        seen += np.bincount(ids, minlength=vocab)
    wanted = distribution(logits, row(0), vocab) * step * steps
    assert seen[wanted == 0].sum() == 0
    large = wanted >= 5
    cells = np.append(wanted[large], max(wanted[~large].sum(), 1e-9))
    counts = np.append(seen[large], seen[~large].sum())
    statistic = ((counts - cells) ** 2 / cells).sum()
    freedom = large.sum()
    assert statistic < freedom + 4 * np.sqrt(2 * freedom) + 4


def test_greedy_takes_the_lowest_id_of_a_tie(run_plan: Any, plan_builder: Any) -> None:
    logits = np.full((1, 50), -1.0, np.float32)
    logits[0, [17, 33, 45]] = 2.0
    logits[0, 49] = 3.0  # not sampleable
    rows = [sampler(temperature=0.0)]
    for isa in ("scalar", None):
        result = sample(run_plan, plan_builder, logits, rows, isa=isa, sampleable=49)
        assert result.ids.tolist() == [17]
    banned = [sampler(temperature=0.0, allowed=[33, 45, 49], vocab=50)]
    assert sample(run_plan, plan_builder, logits, banned, sampleable=49).ids.tolist() == [33]


def test_signed_zeros_tie(run_plan: Any, plan_builder: Any) -> None:
    logits = np.array([[-1.0, -0.0, 0.0, -0.0]], np.float32)
    for params in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}):
        assert sample(run_plan, plan_builder, logits, [sampler(**params)]).ids.tolist() == [1]


def test_a_tiny_temperature_is_greedy(run_plan: Any, plan_builder: Any) -> None:
    logits = make_logits(1, 2000, 3)
    logits[0, 1234] = 50.0
    for temperature in (1e-6, 1e-30, 1e-42):
        for params in ({}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1}):
            rows = [sampler(temperature=temperature, **params)]
            assert sample(run_plan, plan_builder, logits, rows).ids.tolist() == [1234]


def test_minus_infinity_is_a_logit_like_any_other(run_plan: Any, plan_builder: Any) -> None:
    logits = np.full((1, 40), -np.inf, np.float32)
    logits[0, 7], logits[0, 8] = 1.0, -np.inf
    result = sample(run_plan, plan_builder, logits, [sampler(top_k=30, top_logprobs=5)])
    assert result.ids.tolist() == [7]
    assert result.logprobs[0] is not None
    assert result.logprobs[0].logprob == 0.0
    assert result.logprobs[0].top == ((7, 0.0),)


def test_what_cannot_be_sampled_is_an_error_of_its_row(run_plan: Any, plan_builder: Any) -> None:
    logits = make_logits(6, 70, 9)
    logits[1, 69] = np.nan
    logits[2, 0] = np.inf
    logits[3] = -np.inf
    rows = [sampler(temperature=0.0) for _ in range(6)]
    rows[4] = sampler(temperature=0.0, allowed=[], vocab=70)
    for isa in ("scalar", None):
        result = sample(run_plan, plan_builder, logits, rows, isa=isa)
        assert [error is None for error in result.errors] == [True] + [False] * 4 + [True]
        assert result.ids[1:5].tolist() == [-1] * 4
        assert result.errors[1] == result.errors[2] == result.errors[3] != result.errors[4]
        assert result.ids[[0, 5]].tolist() == logits[[0, 5]].argmax(1).tolist()


def test_logprobs_are_of_the_raw_logits(run_plan: Any, plan_builder: Any) -> None:
    vocab, sampleable = 3000, 2990
    logits = make_logits(21, vocab, 4)
    logits[:, sampleable:] = 20.0
    rows = [
        sampler(
            counter=r,
            top_logprobs=r,
            temperature=0.7,
            repetition_penalty=1.4,
            history=range(500),
            logit_bias={1: 9.0},
        )
        for r in range(21)
    ]
    result = sample(run_plan, plan_builder, logits, rows, sampleable=sampleable)
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(1, keepdims=True))
    for r, found in enumerate(result.logprobs):
        assert found is not None
        ranking = np.argsort(-logits[r, :sampleable], kind="stable")[:r]
        assert [token for token, _ in found.top] == ranking.tolist()
        np.testing.assert_allclose([value for _, value in found.top], exact[r, ranking], rtol=3e-7)
        np.testing.assert_allclose(found.logprob, exact[r, result.ids[r]], rtol=3e-7)


@pytest.mark.parametrize("isa", ["scalar", None])
def test_a_target_is_scored_as_if_it_was_sampled(
    run_plan: Any, plan_builder: Any, isa: str | None
) -> None:
    vocab, sampleable = 300, 290
    logits = make_logits(12, vocab, 4)
    drawn = [sampler(counter=r, top_logprobs=3) for r in range(12)]
    expected = sample(run_plan, plan_builder, logits, drawn, sampleable=sampleable)
    scored: list[RowSampler | None] = [
        dataclasses.replace(sampler(top_logprobs=3, temperature=0.0), target=int(token))
        for token in expected.ids
    ]
    assert_same_result(
        sample(run_plan, plan_builder, logits, scored, isa=isa, sampleable=sampleable), expected
    )
    logits[3, expected.ids[3]], logits[5, 0] = -np.inf, np.nan
    got = sample(run_plan, plan_builder, logits, scored, isa=isa, sampleable=sampleable)
    assert [r for r in range(12) if got.errors[r] is not None] == [3, 5]
    assert got.ids[[3, 5]].tolist() == [-1, -1]


def test_no_logprobs_unless_asked(run_plan: Any, plan_builder: Any) -> None:
    result = sample(run_plan, plan_builder, make_logits(1, 20, 0), [sampler()])
    assert list(result.logprobs) == [None]


def test_filters_at_a_full_vocabulary(run_plan: Any, plan_builder: Any) -> None:
    """Flat, middling and peaked logits: the candidates are found at different depths."""
    vocab = 40_000
    spreads = [0.01, 0.5, 2.5, 8.0]
    logits = np.concatenate([make_logits(1, vocab, 1, spread) for spread in spreads] * 7)
    kinds: list[dict[str, Any]] = [
        {"top_k": 1000},
        {"top_p": 0.999},
        {"min_p": 0.001},
        {"top_k": 30_000, "top_p": 0.9},
        {"typical_p": 0.9},
        {"typical_p": 0.5, "min_p": 0.001},
        {"xtc_probability": 1.0, "xtc_threshold": 0.001},
    ]
    rows = [sampler(seed=3, counter=i, **kinds[i // 4]) for i in range(28)]
    expected = sample(run_plan, plan_builder, logits, rows, isa="scalar")
    assert_same_result(sample(run_plan, plan_builder, logits, rows, threads=2), expected)
    for r, row in enumerate(rows):
        weights = np.cumsum(distribution(logits[r], row, vocab))
        wanted = int(np.searchsorted(weights, randoms(3, r)[0], side="right"))
        assert expected.ids[r] == wanted, row


def test_xtc_throws_its_coin_anew_for_each_token(run_plan: Any, plan_builder: Any) -> None:
    logits = np.repeat(np.log(np.array([[0.6, 0.3, 0.1]], np.float32)), 400, axis=0)
    params = {"top_k": 1, "xtc_probability": 0.25, "xtc_threshold": 0.2}
    rows = [sampler(counter=r, **(params | {"top_k": 2})) for r in range(400)]
    ids = sample(run_plan, plan_builder, logits, rows).ids
    excluded = [randoms(0, r)[1] < 0.25 for r in range(400)]
    assert 60 < sum(excluded) < 140
    assert all(ids[r] == 1 for r in range(400) if excluded[r])
    assert 0 < sum(ids[r] == 0 for r in range(400) if not excluded[r]) < 400 - sum(excluded)


def test_dry_takes_time_linear_in_a_hostile_history(run_plan: Any, plan_builder: Any) -> None:
    """Histories that are one repetition: comparing every place with the end would take minutes."""
    size = 1 << 18
    pattern = np.arange(size, dtype=np.int32)
    histories = [pattern * 0, pattern % 2, pattern % 1000 % 7, (pattern == size // 2) * 1]
    rows = [
        dataclasses.replace(
            sampler(temperature=0.0, dry_multiplier=1.0, dry_base=1.0), history=np.int32(history)
        )
        for history in histories
    ]
    logits = np.tile(np.array([3.0, 2.5, 0, 0, 0, 0, 0, 2.25], np.float32), (4, 1))
    for isa in ("scalar", None):
        result = sample(run_plan, plan_builder, logits, rows, context=size, isa=isa)
        assert result.ids.tolist() == [1, 1, 0, 7]
    rows = [dataclasses.replace(row, breakers=mask_of([0], 8)) for row in rows]
    result = sample(run_plan, plan_builder, logits, rows, context=size)
    assert result.ids.tolist() == [0, 0, 0, 0]
    too_long = [dataclasses.replace(rows[0], history=np.zeros(65, np.int32))]
    with pytest.raises(NativeError, match="DRY of row 0 looks at 65 ids"):
        sample(run_plan, plan_builder, logits[:1], too_long)


def test_dry_at_length(run_plan: Any, plan_builder: Any) -> None:
    """Texts with repetitions of every length, by a plain search."""
    rng = np.random.default_rng(5)
    rows = []
    for row in range(12):
        history = rng.integers(0, 2 + row % 3, 300).tolist()
        history += history[50 : 50 + 10 * row]
        rows.append(
            sampler(
                temperature=0.0,
                history=history,
                dry_multiplier=0.3,
                dry_base=1.05,
                dry_allowed_length=1 + row % 4,
                breakers=[3] if row % 2 else None,
                vocab=9,
            )
        )
    logits = make_logits(12, 9, 3, 1.0)
    got = sample(run_plan, plan_builder, logits, rows, context=512)
    expected = [adjusted(logits[r], row, 9).argmax() for r, row in enumerate(rows)]
    assert got.ids.tolist() == expected
    assert expected != logits.argmax(1).tolist()
