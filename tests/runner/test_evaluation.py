"""An evaluation of tiny programs against logits of the engine and numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import edge_llm
from edge_llm.errors import RequestError
from edge_llm.program.file import Program
from edge_llm.runner.evaluation import evaluation
from edge_llm.runner.evaluation.evaluation import Reader, evaluate, open_reader

TinyProgram = Callable[..., Path]
WINDOW, WINDOWS = 48, 3
IDS = [(position * 7919 + 1) % 250 for position in range(WINDOW * WINDOWS + 5)]


@pytest.fixture
def programs(tiny_program: TinyProgram) -> tuple[Path, Path]:
    """A quantized program and the float32 one of the same checkpoint."""
    return tiny_program("8da4w"), tiny_program("fp32")


@pytest.fixture
def readers(programs: tuple[Path, Path]) -> Iterator[tuple[Reader, Reader]]:
    ours, theirs = programs
    with (
        Program.open(ours) as program,
        Program.open(theirs) as reference,
        open_reader(program, WINDOW, threads=1) as first,
        open_reader(reference, WINDOW, threads=1) as second,
    ):
        yield first, second


def log_probabilities(path: Path, ids: list[int]) -> np.ndarray:
    """Natural logarithms of the next token's probabilities, [n, vocab]."""
    with edge_llm.load(path, max_sequences=1, threads=1) as llm:
        logits = llm.logits(ids).astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("second_half", [False, True])
def test_against_numpy(
    programs: tuple[Path, Path], readers: tuple[Reader, Reader], second_half: bool
) -> None:
    losses, divergences, agrees, first = [], [], [], WINDOW // 2 if second_half else 1
    for begin in range(0, WINDOW * WINDOWS, WINDOW):
        ids = IDS[begin : begin + WINDOW]
        q, p = (log_probabilities(path, ids)[first - 1 : -1] for path in programs)
        losses.append([-row[token] for row, token in zip(q, ids[first:], strict=True)])
        divergences.append((np.exp(p) * (p - q)).sum(axis=1))
        agrees.append(p.argmax(axis=1) == q.argmax(axis=1))
    program, reference = readers
    seen: list[tuple[int, int]] = []
    quality = evaluate(
        program,
        IDS,
        window=WINDOW,
        windows=100,
        second_half=second_half,
        reference=reference,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert quality.tokens == WINDOWS * (WINDOW - first)
    assert quality.perplexity.value == pytest.approx(np.exp(np.mean(losses)), rel=1e-6)
    found = quality.divergence
    assert found is not None
    assert found.mean.value == pytest.approx(np.mean(divergences), rel=1e-5)
    assert found.maximum == pytest.approx(np.max(divergences), rel=1e-5)
    assert found.top1.value == pytest.approx(np.mean(agrees))
    alone = evaluate(program, IDS, window=WINDOW, windows=100, second_half=second_half)
    # The core's log-probabilities, and numpy's of its logits.
    assert alone.perplexity.value == pytest.approx(quality.perplexity.value, rel=1e-5)
    assert alone.tokens == quality.tokens


def test_a_program_does_not_differ_from_itself(readers: tuple[Reader, Reader]) -> None:
    program, _ = readers
    found = evaluate(program, IDS, window=WINDOW, windows=2, reference=program).divergence
    assert found is not None
    assert found.mean.value == found.maximum == 0.0
    assert found.top1.value == found.perplexity_ratio.value == 1.0


def test_steps_of_few_rows_change_nothing(
    programs: tuple[Path, Path], readers: tuple[Reader, Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(readers[0], IDS, window=WINDOW, windows=2, second_half=True)
    with Program.open(programs[0]) as program:
        monkeypatch.setattr(evaluation, "_LOGITS_BYTES", 7 * 4 * program.plan.vocab)
        with open_reader(program, WINDOW, threads=1) as reader:
            parts = evaluate(reader, IDS, window=WINDOW, windows=2, second_half=True)
    assert parts == whole


def test_refusals(programs: tuple[Path, Path], readers: tuple[Reader, Reader]) -> None:
    with pytest.raises(RequestError, match="47 tokens, expected at least 48"):
        evaluate(readers[0], IDS[:47], window=WINDOW, windows=1)
    with pytest.raises(RequestError, match="windows is 0"):
        evaluate(readers[0], IDS, window=WINDOW, windows=0)
    with (
        Program.open(programs[0]) as program,
        pytest.raises(RequestError, match="expected 2 to 256"),
        open_reader(program, 257),
    ):
        pass
