"""How far `edge-llm plan` is from this machine: predicted and measured tokens a second, the best of
several short runs, with the ceilings measured between them. Prints a Markdown table.

    python benchmarks/plan_error.py PROGRAM ... [--threads 1,2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_llm import native
from edge_llm.catalogue import find_program
from edge_llm.program.predict import Rates, decode_seconds, measured_rates, prefill_seconds
from edge_llm.runner.evaluation.measure import Measure, loaded

PROMPT, DEPTHS, DECODED = 512, (0, 1024), 32


@dataclass(frozen=True, slots=True)
class Row:
    """A prediction and the measurement, in tokens a second; ``error`` is a share of the latter."""

    model: str
    work: str
    threads: int
    measured: float
    predicted: float
    error: float


def rows(path: Path, threads: int, rounds: int) -> list[Row]:
    """Measure prefill of 512 tokens, and decode at each depth."""
    with loaded(path, max(DEPTHS) + PROMPT, threads) as measure:
        best: dict[str, float] = {}
        rates = _rates(threads)
        for _ in range(rounds):
            for name, seconds in _round(measure).items():
                best[name] = min(seconds, best.get(name, seconds))
            rates = _faster(rates, _rates(threads))
        return [
            _row(measure, path.stem, name, threads, seconds, rates)
            for name, seconds in best.items()
        ]


def _round(measure: Measure) -> dict[str, float]:
    seconds = {f"prefill {PROMPT}": measure.prefill(PROMPT, 0) / PROMPT}
    for depth in DEPTHS:
        measure.fill(depth)
        steps = (measure.decode(1, depth) for _ in range(DECODED))
        seconds[f"decode @{depth}"] = min(steps)
    return seconds


def _row(
    measure: Measure, model: str, work: str, threads: int, seconds: float, rates: Rates
) -> Row:
    kind, _, number = work.partition(" ")
    if kind == "prefill":
        step = measure.step_tokens
        predicted = prefill_seconds(measure.plan, rates, PROMPT, step_tokens=step) / PROMPT
    else:
        predicted = decode_seconds(
            measure.plan, rates, int(number[1:]), measure.executor.limits.kv_dtype
        )
    return Row(model, work, threads, 1 / seconds, 1 / predicted, seconds / predicted - 1)


def _rates(threads: int) -> Rates:
    found = native.ceilings(threads)
    return measured_rates(found.isa, found.bytes_per_second, found.operations_per_second)


def _faster(first: Rates, second: Rates) -> Rates:
    return measured_rates(
        first.isa,
        max(first.bytes_per_second, second.bytes_per_second),
        max(first.int8_per_second, second.int8_per_second),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="+", metavar="PROGRAM")
    parser.add_argument("--threads", default="0", help="counts, as 1,2 (0: physical cores)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = [
        row
        for name in options.programs
        for threads in options.threads.split(",")
        for row in rows(
            find_program(name), int(threads) or native.default_threads(), options.rounds
        )
    ]
    if options.json:
        print(json.dumps([asdict(row) for row in found]))
        return
    print(f"{native.isa()} kernels\n")
    print("| model | work | threads | measured tok/s | predicted tok/s | error |")
    print("|---|---|---|---|---|---|")
    for row in found:
        print(
            f"| {row.model} | {row.work} | {row.threads} | {row.measured:.1f} "
            f"| {row.predicted:.1f} | {row.error:+.0%} |"
        )


if __name__ == "__main__":
    main()
