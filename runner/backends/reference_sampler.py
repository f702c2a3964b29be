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
    top = logits.max()
    if not np.isfinite(top):
        return NON_FINITE if allowed.any() else NONE_ALLOWED
    if params.temperature == 0.0:
        return int(logits.argmax())  # the lowest id among equals
    weights = np.exp((logits - top) / np.float32(params.temperature)).astype(np.float64)
    weights[~_kept(logits, weights, sampler)] = 0.0
    total = np.cumsum(weights)
    drawn = np.searchsorted(total, uniform(sampler.seed, sampler.counter) * total[-1], side="right")
    return int(min(drawn, np.flatnonzero(weights)[-1]))


def raw_logprobs(row: Float32, token: int, most: int, sampleable: int) -> TokenLogprobs:
    """Natural log-probabilities from the raw logits ``row`` [vocab], over the whole vocabulary: of
    ``token``, and of the ``most`` likeliest ids below ``sampleable``."""
    values = row.astype(np.float64)
    values -= values.max() + np.log(np.exp(values - values.max()).sum())
    ranked = np.argsort(-row[:sampleable], kind="stable")[:most]
    top = tuple((int(i), float(values[i])) for i in ranked if np.isfinite(row[i]))
    return TokenLogprobs(float(values[token]), top)


def uniform(seed: int, counter: int) -> float:
    """Return a number in [0, 1) with 53 random bits, a pure function of its arguments (below 2^64
    each): Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)."""
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
    return float((state[0] << 32 | state[1]) >> 11) * 2.0**-53


def _allowed(sampler: RowSampler, sampleable: int) -> Bools:
    if sampler.allowed is None:
        return np.ones(sampleable, np.bool_)
    bits = np.unpackbits(sampler.allowed.view(np.uint8), bitorder="little")
    return bits[:sampleable].astype(np.bool_)


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


def _distinct(ids: Int32, sampleable: int) -> tuple[Int32, Int32]:
    distinct, counts = np.unique(ids[ids < sampleable], return_counts=True)
    return distinct, counts.astype(np.int32)


def _kept(logits: Float32, weights: NDArray[np.float64], sampler: RowSampler) -> Bools:
    """Which ids top-k, then min-p, then top-p over what is left, keep. All three keep a beginning
    of the ranking by logit, equal logits by id."""
    params = sampler.params
    ranking = np.argsort(-logits, kind="stable")
    if params.top_k:
        ranking = ranking[: params.top_k]
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
