"""Sampling written plainly in numpy, with the meaning of runner/native/sampler: the oracle of the
native sampler, and the sampler of the torch backend.

Exponentials and sums may differ from the native ones in the last bit, so that a draw may fall on
the other side of a boundary; greedy choices are the same for the same logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_llm.runner.executor import Float32, Int32, RowSampler, StepResult, TokenLogprobs

NON_FINITE = "the logits are not finite"
NONE_ALLOWED = "the mask of allowed tokens allows none"

Bools = NDArray[np.bool_]
UInt32 = NDArray[np.uint32]

_WORD = 2**32 - 1


def sample_rows(
    logits: Float32, samplers: Sequence[RowSampler | None], sampleable: int, want_logits: bool
) -> StepResult:
    """Samples those rows of ``logits`` [R, vocab] that have a sampler. Ids from ``sampleable`` on
    are never sampled."""
    ids = np.full(len(samplers), -1, np.int32)
    logprobs: list[TokenLogprobs | None] = [None] * len(samplers)
    errors: list[str | None] = [None] * len(samplers)
    for row, sampler in enumerate(samplers):
        if sampler is None:
            continue
        outcome = choose(logits[row], sampler, sampleable)
        if isinstance(outcome, str):
            errors[row] = outcome
            continue
        ids[row] = outcome
        most = sampler.params.top_logprobs
        if most is not None:
            logprobs[row] = raw_logprobs(logits[row], outcome, most, sampleable)
    return StepResult(ids, logprobs, errors, logits if want_logits else None)


def choose(row: Float32, sampler: RowSampler, sampleable: int) -> int | str:
    """Return one token id for the logits ``row`` [vocab], or why there is none."""
    params = sampler.params
    if np.isnan(row).any() or np.isposinf(row).any():
        return NON_FINITE
    if sampler.target >= 0:
        return sampler.target if np.isfinite(row[sampler.target]) else NON_FINITE
    logits = row[:sampleable].copy()
    allowed = _allowed(sampler, sampleable)
    logits[~allowed] = -np.inf
    for token, bias in params.logit_bias.items():
        if token < sampleable:
            logits[token] += np.float32(bias)
    _penalize(logits, sampler)
    if params.dry_multiplier > 0:
        _discourage(logits, sampler)
    top = logits.max()
    if not np.isfinite(top):
        return NON_FINITE if allowed.any() else NONE_ALLOWED
    if params.temperature == 0.0:
        return int(logits.argmax())  # the lowest id among equals
    weights = np.exp((logits - top) / np.float32(params.temperature)).astype(np.float64)
    weights[~_kept(logits, weights, sampler)] = 0.0
    random, coin = randoms(sampler.seed, sampler.counter)
    if coin < float(np.float32(params.xtc_probability)):
        _exclude_top(logits, weights, params.xtc_threshold)
    total = np.cumsum(weights)
    drawn = np.searchsorted(total, random * total[-1], side="right")
    return int(min(drawn, np.flatnonzero(weights)[-1]))


def raw_logprobs(row: Float32, token: int, most: int, sampleable: int) -> TokenLogprobs:
    """Natural log-probabilities from the raw logits ``row`` [vocab], over the whole vocabulary: of
    ``token``, and of the ``most`` likeliest ids below ``sampleable``."""
    values = row.astype(np.float64)
    values -= values.max() + np.log(np.exp(values - values.max()).sum())
    ranked = np.argsort(-row[:sampleable], kind="stable")[:most]
    top = tuple((int(i), float(values[i])) for i in ranked if np.isfinite(row[i]))
    return TokenLogprobs(float(values[token]), top)


def randoms(seed: int, counter: int) -> tuple[float, float]:
    """Return two numbers in [0, 1) with 53 random bits each, for the draw and for XTC's coin: pure
    functions of the arguments (below 2^64 each). Philox4x32-10 (Salmon et al., "Parallel random
    numbers: as easy as 1, 2, 3", SC 2011)."""
    key = [seed & _WORD, seed >> 32]
    state = [counter & _WORD, counter >> 32, 0, 0]
    for _ in range(10):
        first, second = 0xD2511F53 * state[0], 0xCD9E8D57 * state[2]
        state = [
            (second >> 32) ^ state[1] ^ key[0],
            second & _WORD,
            (first >> 32) ^ state[3] ^ key[1],
            first & _WORD,
        ]
        key = [(key[0] + 0x9E3779B9) & _WORD, (key[1] + 0xBB67AE85) & _WORD]
    draw, coin = (float((h << 32 | low) >> 11) * 2.0**-53 for h, low in (state[:2], state[2:]))
    return draw, coin


def _allowed(sampler: RowSampler, sampleable: int) -> Bools:
    return _bits(sampler.allowed, sampleable, missing=True)


def _bits(mask: UInt32 | None, count: int, *, missing: bool) -> Bools:
    """Return the first bits of a mask, all ``missing`` where there is none."""
    if mask is None:
        return np.full(count, missing)
    return np.unpackbits(mask.view(np.uint8), bitorder="little")[:count].astype(np.bool_)


def _penalize(logits: Float32, sampler: RowSampler) -> None:
    """Repetition penalty (arXiv 1909.05858; negative logits are multiplied) for every id of prompt
    and output, presence and frequency penalties for those of the output."""
    params = sampler.params
    seen = _distinct(sampler.history, len(logits))[0]
    values = logits[seen]
    penalty = np.float32(params.repetition_penalty)
    logits[seen] = np.where(values > 0, values / penalty, values * penalty)
    output, counts = _distinct(sampler.history[sampler.prompt_length :], len(logits))
    logits[output] -= np.float32(params.presence_penalty)
    logits[output] -= np.float32(params.frequency_penalty) * counts.astype(np.float32)


def _discourage(logits: Float32, sampler: RowSampler) -> None:
    """DRY (github.com/oobabooga/textgen/pull/5677): an id that would go on with a repetition of n
    tokens, the longest there is, loses multiplier * base^(n - allowed_length). No repetition
    reaches across a breaker, and breakers lose nothing."""
    params = sampler.params
    ids = sampler.history.tolist()
    if params.dry_penalty_last_n >= 0:
        ids = ids[max(0, len(ids) - params.dry_penalty_last_n) :]
    breaks = _bits(sampler.breakers, max([len(logits), *ids]) + 1, missing=False)
    longest: dict[int, int] = {}
    for end in range(1, len(ids)):  # what ids[:end] ends with, and the whole does too
        length = 0
        while (
            length < end
            and ids[end - 1 - length] == ids[-1 - length]
            and not breaks[ids[-1 - length]]
        ):
            length += 1
        if ids[end] < len(logits) and not breaks[ids[end]]:
            longest[ids[end]] = max(length, longest.get(ids[end], 0))
    for token, length in longest.items():
        if length >= params.dry_allowed_length:
            base, exponent = np.float32(params.dry_base), length - params.dry_allowed_length
            penalty = float(np.float32(params.dry_multiplier)) * _power(float(base), exponent)
            logits[token] -= np.float32(min(penalty, 1e30))


def _power(base: float, exponent: int) -> float:
    """Return base^exponent by squaring, as the core does; it may become infinite."""
    result = 1.0
    while exponent > 0:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def _exclude_top(logits: Float32, weights: NDArray[np.float64], threshold: float) -> None:
    """XTC (github.com/oobabooga/textgen/pull/6335): of the ids with at least so much of the
    probability, only the last in the ranking keeps its weight."""
    likely = np.flatnonzero((weights > 0) & (weights >= np.float32(threshold) * weights.sum()))
    if len(likely):
        last = likely[np.argsort(-logits[likely], kind="stable")[-1]]
        weights[likely[likely != last]] = 0.0


def _distinct(ids: Int32, sampleable: int) -> tuple[Int32, Int32]:
    distinct, counts = np.unique(ids[ids < sampleable], return_counts=True)
    return distinct, counts.astype(np.int32)


def _kept(logits: Float32, weights: NDArray[np.float64], sampler: RowSampler) -> Bools:
    """Which ids top-k, typicality, min-p and top-p keep, each over what is left. All but
    typicality (Meister et al., arXiv 2202.00666) keep a beginning of the ranking by logit, equal
    logits by id."""
    params = sampler.params
    ranking = np.argsort(-logits, kind="stable")
    if params.top_k:
        ranking = ranking[: params.top_k]
    if params.typical_p < 1:
        scaled = (logits[ranking] - logits[ranking[0]]) / np.float32(params.temperature)
        possible = weights[ranking] > 0
        share = weights[ranking][possible]
        mean = np.float32((share * scaled[possible]).sum() / share.sum())  # -log p - H: mean - x
        by_id = np.argsort(ranking, kind="stable")
        order = by_id[np.argsort(np.abs(scaled - mean)[by_id], kind="stable")]
        reached = np.cumsum(weights[ranking[order]])
        enough = np.float32(params.typical_p) * reached[-1]
        count = int(np.searchsorted(reached, enough)) + 1
        ranking = ranking[np.sort(order[:count])]
    if params.min_p > 0:
        distance = (logits[ranking] - logits[ranking[0]]) / np.float32(params.temperature)
        ranking = ranking[distance >= np.float32(np.log(params.min_p))]
    if params.top_p < 1:
        reached = np.cumsum(weights[ranking])
        count = int(np.searchsorted(reached, params.top_p * reached[-1])) + 1
        ranking = ranking[:count]
    kept = np.zeros(len(logits), np.bool_)
    kept[ranking] = True
    return kept
