"""The arithmetic of ``edge-llm eval``: perplexity, and how far a program is from a reference.

Everything is computed in float64. Logits come a few rows at a time; of each token only its scores
are kept, so that memory does not depend on the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import RequestError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_ROWS = 16  # rows at once: what numpy makes on the way stays in the cache
_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its standard error over windows of text; None for a single window.

    Tokens of one window depend on each other, so windows are what is drawn: the error of a mean is
    the standard deviation of the windows' means over the root of their number."""

    value: float
    error: float | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """The distance of a program's next-token distributions from a reference's, over all tokens.

    Attributes:
        mean, median, p99, maximum: of the Kullback-Leibler divergence from the reference to the
            program, in nats a token.
        top1: the share of tokens where both find the same token likeliest.
        reference_perplexity: the perplexity of the reference.
        perplexity_ratio: the program's perplexity over the reference's, its error from the paired
            differences.
        window_means: the mean of each window.
    """

    mean: Estimate
    median: Estimate
    p99: Estimate
    maximum: float
    top1: Estimate
    reference_perplexity: Estimate
    perplexity_ratio: Estimate
    window_means: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """The result of an evaluation over ``windows`` windows and ``tokens`` scored tokens;
    ``window_perplexities`` has the perplexity of each window."""

    windows: int
    tokens: int
    perplexity: Estimate
    window_perplexities: tuple[float, ...]
    divergence: Divergence | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of the same n tokens by a program and a reference, [n] each: negative
    log-likelihoods in nats, divergences in nats, and whether the likeliest tokens agree."""

    losses: Float64
    reference_losses: Float64
    divergences: Float64
    agrees: NDArray[np.bool_]

    @classmethod
    def of_losses(cls, losses: Float64) -> Comparison:
        """Return the scores of a program without a reference: those of the latter are empty."""
        return cls(losses, np.empty(0), np.empty(0), np.empty(0, np.bool_))

    def record(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return {each.name: getattr(self, each.name).tolist() for each in fields(self)}

    @classmethod
    def of(cls, record: Mapping[str, Any], count: int) -> Comparison:
        """Return what `record` was made of: scores of ``count`` tokens.

        Raises:
            RequestError: it is no such record.
        """
        try:
            made: dict[str, Any] = {
                each.name: np.array(
                    record[each.name], np.bool_ if each.name == "agrees" else np.float64
                )
                for each in fields(cls)
            }
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"a record of a window is not of this form: {error}") from error
        lengths = {name: array.shape for name, array in made.items()}
        others = lengths["divergences"]
        if (
            lengths.pop("losses") != (count,)
            or others not in ((0,), (count,))
            or any(shape != others for shape in lengths.values())
        ):
            raise RequestError(f"a record of a window has not the scores of {count} tokens")
        return cls(**made)


def compare_rows(logits: Float32, reference: Float32, targets: NDArray[np.int32]) -> Comparison:
    """Score ``targets`` [n] under the ``logits`` of the program and of the ``reference``, both
    [n, vocab]."""
    count = len(targets)
    losses, reference_losses, divergences = (np.empty(count) for _ in range(3))
    agrees = np.empty(count, np.bool_)
    for begin in range(0, count, _ROWS):
        part = slice(begin, begin + _ROWS)
        ours, theirs = _log_softmax(logits[part]), _log_softmax(reference[part])
        rows, chosen = np.arange(len(ours)), targets[part]
        losses[part], reference_losses[part] = -ours[rows, chosen], -theirs[rows, chosen]
        agrees[part] = ours.argmax(axis=1) == theirs.argmax(axis=1)
        np.subtract(theirs, ours, out=ours)
        divergences[part] = np.einsum("ij,ij->i", np.exp(theirs, out=theirs), ours)
    return Comparison(losses, reference_losses, divergences, agrees)


def summarize(losses: Float64) -> Quality:
    """Return the perplexity of ``losses`` [windows, tokens a window], in nats."""
    return Quality(len(losses), losses.size, _perplexity(losses), _perplexities(losses))


def summarize_comparison(windows: list[Comparison]) -> Quality:
    """Return perplexity and divergence over ``windows``, one comparison a window, all of the same
    number of tokens."""
    losses = np.stack([window.losses for window in windows])
    reference = np.stack([window.reference_losses for window in windows])
    divergences = np.stack([window.divergences for window in windows])
    agrees = np.stack([window.agrees for window in windows])
    divergence = Divergence(
        mean=_mean(divergences),
        median=_resampled(divergences, lambda found: float(np.median(found))),
        p99=_resampled(divergences, lambda found: float(np.quantile(found, 0.99))),
        maximum=float(divergences.max()),
        top1=_mean(agrees.astype(np.float64)),
        reference_perplexity=_perplexity(reference),
        perplexity_ratio=_perplexity(losses - reference),
        window_means=tuple(divergences.mean(axis=1).tolist()),
    )
    return Quality(len(losses), losses.size, _perplexity(losses), _perplexities(losses), divergence)


def _log_softmax(logits: Float32) -> Float64:
    shifted: Float64 = logits - logits.max(axis=1, keepdims=True).astype(np.float64)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _mean(values: Float64) -> Estimate:
    """Return the mean of [windows, tokens]."""
    means = values.mean(axis=1)
    error = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None
    return Estimate(float(means.mean()), error)


def _perplexity(losses: Float64) -> Estimate:
    """Return exp of the mean; the error follows from the mean's to first order."""
    mean = _mean(losses)
    value = float(np.exp(mean.value))
    return Estimate(value, None if mean.error is None else value * mean.error)


def _perplexities(losses: Float64) -> tuple[float, ...]:
    """Return the perplexity of each window."""
    return tuple(np.exp(losses.mean(axis=1)).tolist())


def _resampled(values: Float64, statistic: Callable[[Float64], float]) -> Estimate:
    """Return a statistic of all tokens; its error is the bootstrap's over windows (drawn with a
    fixed seed), made larger by the share that drawing from the sample itself leaves out."""
    count = len(values)
    if count == 1:
        return Estimate(statistic(values), None)
    random = np.random.default_rng(0)
    draws = [statistic(values[random.integers(0, count, count)]) for _ in range(_RESAMPLES)]
    error = float(np.std(draws, ddof=1) * np.sqrt(count / (count - 1)))
    return Estimate(statistic(values), error)
