"""Engines measured in turn, A B C A B C ..., in one run."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from document import where
from process import EngineError, EngineProcess
from programs import ROOT
from registry import CONTEXT, HERE, JUDGE

from edge_llm import native

OURS = "edge-llm 8da4w"
GREEDY_PROMPT = [504, 3575, 282, 4649, 314]  # "The capital of France is" to SmolLM2


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: ``kind`` of ``tokens`` tokens after ``depth`` cached ones. The bar is the
    ratio to llama.cpp Q4_0 with two threads, for SmolLM2 another one."""

    title: str
    kind: str
    tokens: int
    depth: int

    @property
    def key(self) -> str:
        return f"{self.kind} {self.tokens} @ {self.depth}"


CELLS = (
    Cell("decode, empty cache", "decode", 48, 0),
    Cell("prefill 512", "prefill", 512, 0),
    Cell("prefill 2048", "prefill", 2048, 0),
    Cell("decode, 1,024 cached", "decode", 48, 1024),
)
# What is measured in the same rounds. A machine that drifts would make decode after 1,024 tokens
# look faster than from an empty cache, if one came minutes after the other.
PASSES = ((CELLS[0], CELLS[3]), (CELLS[1],), (CELLS[2],))


@dataclass(frozen=True, slots=True)
class Plan:
    """A model, the engines that have it (title -> interpreter, script, file), and why others do
    not."""

    model: str
    engines: Mapping[str, tuple[Path, str, Path]]
    missing: Mapping[str, str]


def compare(
    plans: list[Plan],
    *,
    rounds: int,
    quick: bool,
    passes: Sequence[tuple[Cell, ...]] = PASSES,
) -> dict[str, Any]:
    """Return all measurements as JSON: ``rounds`` each for us and for llama.cpp Q4_0. The other
    peers take part in the first few, and prefill 2048 has fewer."""
    start = time.monotonic()
    others = 0.0
    models = []
    for plan in plans:
        runs = []
        for threads in (2, 1):
            others = max(others, busy_share())
            say(f"{plan.model}, {threads} threads, {time.monotonic() - start:.0f} s so far")
            runs.append(_run(plan, threads, rounds, passes))
        models.append({"model": plan.model, "missing": dict(plan.missing), "runs": runs})
    limits = [native.ceilings(threads) for threads in (1, 2)]
    return {
        "where": where(),
        "minutes": (time.monotonic() - start) / 60,
        "quick": quick,
        "others_share": others,
        "paired_depths": True,  # see `PASSES`
        "ceilings": [
            {
                "threads": limit.threads,
                "isa": limit.isa,
                "bytes_per_second": limit.bytes_per_second,
                "operations_per_second": limit.operations_per_second,
            }
            for limit in limits
        ],
        "models": models,
    }


def _run(
    plan: Plan, threads: int, rounds: int, passes: Sequence[tuple[Cell, ...]]
) -> dict[str, Any]:
    engines: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        processes: dict[str, EngineProcess] = {}
        for title, (python, script, file) in plan.engines.items():
            record: dict[str, Any] = {"file_bytes": size(file), "seconds": {}, "failed": {}}
            engines[title] = record
            command = [str(python), str(HERE / script), str(file)]
            command += ["--threads", str(threads), "--context", str(CONTEXT)]
            try:
                process = EngineProcess(command, _environment(title, threads))
                stack.callback(process.close)
                process.ask("prefill", depth=0, tokens=64)  # warms up
                process.ask("decode", depth=0, tokens=4)
                if plan.model == "smollm2-135m":
                    record["greedy"] = process.ask("greedy", ids=GREEDY_PROMPT)["id"]
            except EngineError as exc:
                record["failed"]["start"] = str(exc)
                say(f"  {title}: {exc}")
                continue
            processes[title] = process
            record |= {"load_seconds": process.load_seconds, "version": process.version}
        for cells in passes:
            if threads == 1 and cells[0].tokens == 2048:
                continue  # no bar asks for it, and it takes minutes
            _measure(cells, processes, engines, rounds)
        for title, process in processes.items():
            engines[title] |= process.memory()
    return {"threads": threads, "engines": engines}


def _measure(
    cells: tuple[Cell, ...],
    processes: dict[str, EngineProcess],
    engines: dict[str, Any],
    rounds: int,
) -> None:
    """Measure ``cells`` in the same rounds: in each, every engine in turn, cell by cell."""
    long = cells[0].tokens == 2048
    often, seldom = (3, 1) if long else (rounds, 2 if cells[0].kind == "prefill" else 3)
    alive = dict(processes)
    for number in range(often):
        for cell in cells:
            for title, process in list(alive.items()):
                if number >= seldom and title not in (OURS, JUDGE):
                    continue
                record = engines[title]
                try:
                    process.ask("fill", depth=cell.depth)
                    answer = process.ask(cell.kind, tokens=cell.tokens, depth=cell.depth)
                except EngineError as exc:
                    record["failed"][cell.key] = str(exc)
                    say(f"  {title}, {cell.title}: {exc}")
                    del alive[title]
                    continue
                record["seconds"].setdefault(cell.key, []).append(answer["seconds"])
    for cell in cells:
        ours = engines[OURS]["seconds"].get(cell.key)
        for title in alive:
            theirs = engines[title]["seconds"][cell.key]
            ratio = "" if not ours or title == OURS else f"  x{ratio_of(ours, theirs):.2f}"
            say(f"  {cell.title}: {title} {cell.tokens / statistics.median(theirs):.1f}/s{ratio}")


def ratio_of(ours: list[float], theirs: list[float]) -> float:
    """Return how many times faster we are: the median over the rounds that both took part in."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=False))


def busy_share(seconds: float = 2.0) -> float:
    """Return the share of all processors' time that is taken over the next seconds."""

    def ticks() -> tuple[int, int]:
        values = [
            int(part) for part in Path("/proc/stat").read_text("ascii").split("\n")[0].split()[1:9]
        ]
        return sum(values), values[3] + values[4]  # all; idle and waiting for disks

    total, idle = ticks()
    time.sleep(seconds)
    after, idle_after = ticks()
    return 1 - (idle_after - idle) / max(1, after - total)


def size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _environment(title: str, threads: int) -> dict[str, str]:
    ours = {"PYTHONPATH": str(ROOT / "src")} if title == OURS else {"PYTHONPATH": ""}
    return {"OMP_NUM_THREADS": str(threads)} | ours


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
