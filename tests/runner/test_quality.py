"""The arithmetic of an evaluation against formulas written out in float64."""

from __future__ import annotations

import numpy as np
import pytest

from edge_llm.runner.evaluation.quality import (
    Comparison,
    compare_rows,
    summarize,
    summarize_comparison,
)


def distributions(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def random_logits(seed: int, rows: int = 37, vocab: int = 101) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 5, (rows, vocab)).astype(np.float32)


def test_scores_of_rows() -> None:
    ours, theirs = random_logits(1), random_logits(2)
    theirs[::2] = ours[::2] + 0.25  # the same distributions, and the same likeliest tokens
    targets = np.arange(37, dtype=np.int32) * 2
    found = compare_rows(ours, theirs, targets)
    p, q = distributions(theirs), distributions(ours)
    rows = np.arange(37)
    np.testing.assert_allclose(found.divergences, (p * np.log(p / q)).sum(axis=1), atol=1e-9)
    np.testing.assert_allclose(found.losses, -np.log(q[rows, targets]), rtol=1e-12)
    np.testing.assert_allclose(found.reference_losses, -np.log(p[rows, targets]), rtol=1e-12)
    assert (found.agrees == (ours.argmax(axis=1) == theirs.argmax(axis=1))).all()
    assert found.agrees[::2].all()


def test_logits_of_any_size_are_fine() -> None:
    """Very likely and impossible tokens overflow nothing."""
    ours = np.array([[3e4, -3e4, 0.0]], np.float32)
    theirs = np.array([[3e4, 0.0, -3e4]], np.float32)
    found = compare_rows(ours, theirs, np.array([0], np.int32))
    assert found.divergences[0] == found.losses[0] == 0.0


def test_perplexity_and_its_error() -> None:
    losses = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])
    quality = summarize(losses)
    assert (quality.windows, quality.tokens, quality.divergence) == (2, 6, None)
    assert quality.perplexity.value == pytest.approx(np.exp(3.0))
    # The windows' means are 2 and 4: their standard deviation is sqrt(2), that of their mean 1.
    assert quality.perplexity.error == pytest.approx(np.exp(3.0))


def test_one_window_has_no_error() -> None:
    assert summarize(np.ones((1, 4))).perplexity.error is None


def test_summary_of_a_comparison() -> None:
    random = np.random.default_rng(3)
    windows = [
        Comparison(
            losses=random.exponential(3, 50) + 0.1,
            reference_losses=random.exponential(3, 50),
            divergences=random.exponential(0.2, 50),
            agrees=random.random(50) < 0.7,
        )
        for _ in range(8)
    ]
    quality = summarize_comparison(windows)
    found = quality.divergence
    assert found is not None
    every = np.concatenate([window.divergences for window in windows])
    assert found.mean.value == pytest.approx(every.mean())
    means = np.array([window.divergences.mean() for window in windows])
    assert found.mean.error == pytest.approx(means.std(ddof=1) / np.sqrt(8))
    assert found.median.value == np.median(every)
    assert found.p99.value == np.quantile(every, 0.99)
    assert found.maximum == every.max()
    assert found.top1.value == pytest.approx(np.mean([window.agrees.mean() for window in windows]))
    ratio = quality.perplexity.value / found.reference_perplexity.value
    assert found.perplexity_ratio.value == pytest.approx(ratio)
    # The bootstrap of a mean would give about the error of the formula; so do the quantiles here.
    assert found.median.error is not None
    assert found.p99.error is not None
    assert 0 < found.median.error < found.p99.error < 1


def test_equal_summaries_of_equal_numbers() -> None:
    """The resampling draws with a fixed seed."""
    window = Comparison(*(np.linspace(0, 1, 20) for _ in range(3)), np.ones(20, np.bool_))
    other = Comparison(*(np.linspace(0, 2, 20) for _ in range(3)), np.zeros(20, np.bool_))
    assert summarize_comparison([window, other]) == summarize_comparison([window, other])
