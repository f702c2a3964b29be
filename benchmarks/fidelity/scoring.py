"""Next-token distributions of programs and GGUF files beside a float program's, by the arithmetic
of ``edge-llm eval``, which scores llama.cpp's logits too: one definition for all rows.

Both read the same ids: windows of `WINDOW` tokens that do not overlap, nothing before the first,
the second halves scored.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp_tools
import numpy as np
from numpy.typing import NDArray
from sources import PEERS, THREADS

from edge_llm.program.file import Program
from edge_llm.runner.evaluation.evaluation import open_reader
from edge_llm.runner.evaluation.quality import (
    Comparison,
    Estimate,
    compare_rows,
    summarize_comparison,
)
from edge_llm.tokenizers.tokenizer import tokenizer_of

WINDOW = 1024
FIRST = WINDOW // 2 - 1  # the row about the first scored token

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
# The logits of a window's rows from `FIRST` on, a few at a time.
Scorer = Callable[[Int32], Iterator[Float32]]


@contextmanager
def scorer(path: Path) -> Iterator[Scorer]:
    """Open a program, or a GGUF file in llama.cpp."""
    with (_gguf if path.suffix == ".gguf" else _program)(path) as opened:
        yield opened


@contextmanager
def _program(path: Path) -> Iterator[Scorer]:
    with (
        Program.open(path) as program,
        open_reader(program, WINDOW, threads=THREADS) as reader,
    ):
        yield lambda ids: reader.logits(ids, FIRST)


@contextmanager
def _gguf(path: Path) -> Iterator[Scorer]:
    command = [str(llama_cpp_tools.PYTHON), str(PEERS / "logits_llama_cpp.py"), str(path)]
    command += ["--threads", str(THREADS), "--context", str(WINDOW)]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        file = Path(folder) / "logits"
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | llama_cpp_tools.ENVIRONMENT,
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def logits(ids: Int32) -> Iterator[Float32]:
            request = {"ids": ids.tolist(), "first": FIRST, "file": str(file)}
            print(json.dumps(request), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            if not answer:
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"llama.cpp stopped on {path.name}: {last}")
            found = json.loads(answer)
            yield np.fromfile(file, np.float32).reshape(found["rows"], found["vocab"])

        try:
            yield logits
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()


class Reference:
    """The logits of a float program over the first windows of a text, kept in a file until
    `close`: 100 MB a window with SmolLM2's vocabulary."""

    def __init__(self, program: Path, text: str, windows: int, folder: Path) -> None:
        with Program.open(program) as opened:
            ids = tokenizer_of(opened).encode(text, add_bos=False)[: windows * WINDOW]
            vocab = opened.plan.vocab
        self.texts = np.asarray(ids, np.int32).reshape(windows, WINDOW)
        self._file = tempfile.NamedTemporaryFile(dir=folder, suffix=".logits")  # noqa: SIM115
        shape = (windows, WINDOW - 1 - FIRST, vocab)
        self._logits = np.memmap(self._file.name, np.float32, "w+", shape=shape)
        with scorer(program) as score:
            for text_ids, rows in zip(self.texts, self._logits, strict=True):
                begin = 0
                for part in score(text_ids):
                    rows[begin : begin + len(part)] = part
                    begin += len(part)

    def score(self, path: Path) -> dict[str, Any]:
        """Return how far a program or GGUF file is from the reference, as JSON values."""
        start = time.monotonic()
        with scorer(path) as opened:
            compared = [
                _compare(opened(ids), rows, ids)
                for ids, rows in zip(self.texts, self._logits, strict=True)
            ]
        found = summarize_comparison(compared)
        assert found.divergence is not None
        divergence = found.divergence
        return {
            "file_bytes": path.stat().st_size,
            **_rounded("kl", divergence.mean),
            **_rounded("kl_median", divergence.median),
            **_rounded("kl_p99", divergence.p99),
            "kl_max": _digits(divergence.maximum),
            **_rounded("perplexity", found.perplexity),
            **_rounded("perplexity_ratio", divergence.perplexity_ratio),
            **_rounded("top1", divergence.top1),
            "reference_perplexity": _digits(divergence.reference_perplexity.value),
            "seconds": round(time.monotonic() - start, 1),
        }

    def close(self) -> None:
        del self._logits
        self._file.close()


def _compare(parts: Iterator[Float32], reference: Sequence[Any], ids: Int32) -> Comparison:
    found, begin = [], 0
    for part in parts:
        end = begin + len(part)
        targets = ids[FIRST + 1 + begin : FIRST + 1 + end]
        found.append(compare_rows(part, np.asarray(reference[begin:end]), targets))
        begin = end
    return Comparison(
        *(
            np.concatenate([getattr(one, name) for one in found])
            for name in ("losses", "reference_losses", "divergences", "agrees")
        )
    )


def _rounded(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: _digits(estimate.value), f"{name}_error": _digits(estimate.error or 0.0)}


def _digits(value: float) -> float:
    return float(f"{value:.5g}")
