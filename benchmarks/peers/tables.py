"""The tables of docs/performance.md from the results of a comparison."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from comparison import CELLS, OURS, Cell, ratio_of
from document import table
from programs import MODELS, SMOLLM2
from registry import JUDGE

# (ratio to llama.cpp Q4_0 with two threads, the same for SmolLM2)
BARS = {
    "decode, empty cache": (1.5, 2.0),
    "decode, 1,024 cached": (2.2, 2.2),
    "prefill 512": (2.5, 3.0),
    "prefill 2048": (2.5, 2.5),
}
# Of a cell, a model and a number of threads.
Bar = Callable[[Cell, str, int], float]
QUIET = 0.05  # share of the processors' time that others may take
ONE_THREAD_BAR = 1.5
DECODE_BARS = {"ONNX Runtime GenAI int4": 1.25}  # of the other peers; else 1


def peers_bar(cell: Cell, model: str, threads: int) -> float:
    general, small = BARS[cell.title]
    return ONE_THREAD_BAR if threads == 1 else small if model == SMOLLM2 else general


def markdown(results: dict[str, Any], cells: Sequence[Cell] = CELLS, bar: Bar = peers_bar) -> str:
    parts = [
        f"{results['where']} {_versions(results)} The run took {results['minutes']:.0f} minutes.",
        "Ratios are ours to theirs in tokens a second, medians over interleaved rounds; same "
        "checkpoint, and 8da4w for ours.",
    ]
    if not quiet(results):
        parts.append(
            f"**Not a quiet machine: other processes took {results['others_share']:.0%} of it. "
            "These figures judge nothing.**"
        )
    for threads in (2, 1):
        plural = "threads" if threads > 1 else "thread"
        parts.append(
            f"### Times llama.cpp Q4_0, {threads} {plural}\n\n"
            f"{_judged(results, cells, bar, threads)}"
        )
    if not results["quick"]:
        for model in results["models"]:
            paired = results.get("paired_depths", False)
            parts.append(f"### {MODELS[model['model']]}\n\n{_engines(model, cells, paired)}")
        if results.get("paired_depths"):
            parts.append(
                "Decode with an empty cache and with 1,024 tokens cached was measured in the same "
                "rounds; *kept* is the median over rounds of the second speed as a share of the "
                "first."
            )
    return "\n\n".join(parts)


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Return the speeds of the tables as JSON values: medians in tokens a second."""
    models = []
    for model in results["models"]:
        engines = []
        for run in model["runs"]:
            for title, record in run["engines"].items():
                speeds = {
                    cell.title: float(f"{cell.tokens / statistics.median(seconds):.4g}")
                    for cell in CELLS
                    if (seconds := record["seconds"].get(cell.key))
                }
                if speeds:
                    engines.append(
                        {
                            "title": title,
                            "threads": run["threads"],
                            "per_second": speeds,
                            "file_bytes": record["file_bytes"],
                        }
                    )
        models.append(
            {"model": model["model"], "title": MODELS[model["model"]], "engines": engines}
        )
    where: str = results["where"]
    return {"date": where.split(";")[0], "where": where, "models": models}


def quiet(results: dict[str, Any]) -> bool:
    return bool(results["others_share"] <= QUIET)


def _judged(results: dict[str, Any], cells: Sequence[Cell], bar: Bar, threads: int) -> str:
    models = results["models"]
    rows = []
    for cell in cells:
        verdicts = [_verdict(cell, model, bar, threads, quiet(results)) for model in models]
        if any(verdicts):
            rows.append([cell.title, *verdicts])
    return table(["", *(MODELS[model["model"]] for model in models)], rows)


def _verdict(cell: Cell, model: dict[str, Any], bar: Bar, threads: int, judge: bool) -> str:
    engines = _run(model, threads)["engines"]
    ours = engines[OURS]["seconds"].get(cell.key)
    theirs = engines.get(JUDGE, {"seconds": {}})["seconds"].get(cell.key)
    if not ours or not theirs:
        return "missing" if threads == 2 else ""
    least, ratio = bar(cell, model["model"], threads), ratio_of(ours, theirs)
    verdict = f": {'pass' if ratio >= least else 'miss'}" if judge else ""
    return f"{ratio:.2f} (bar {least}{verdict})"


def _engines(model: dict[str, Any], cells: Sequence[Cell], paired: bool) -> str:
    """Return tokens a second of every engine, and how many times faster we are."""
    head = [
        "engine",
        "threads",
        *(cell.title for cell in cells),
        *(["kept"] if paired else []),
        "file MB",
        "peak RSS MB",
        "load s",
    ]
    rows = []
    for run in model["runs"]:
        ours = run["engines"][OURS]["seconds"]
        for title, record in run["engines"].items():
            speeds = [_speed(cell, title, record, ours) for cell in cells]
            if "start" in record["failed"]:
                continue
            rows.append(
                [
                    title,
                    str(run["threads"]),
                    *speeds,
                    *([_kept(record["seconds"])] if paired else []),
                    f"{record['file_bytes'] / 1e6:.0f}",
                    f"{record['peak_rss_bytes'] / 1e6:.0f}",
                    f"{record['load_seconds']:.2f}",
                ]
            )
    return table(head, rows) + "".join(f"\n{line}" for line in _absences(model))


def _speed(cell: Cell, title: str, record: dict[str, Any], ours: dict[str, list[float]]) -> str:
    seconds = record["seconds"].get(cell.key)
    if not seconds:
        return "-"
    speed = cell.tokens / statistics.median(seconds)
    shown = f"{speed:.0f}" if speed >= 100 else f"{speed:.1f}"
    if title == OURS or cell.key not in ours:
        return shown
    ratio = ratio_of(ours[cell.key], seconds)
    bar = DECODE_BARS.get(title, 1.0) if cell.kind == "decode" else 1.0
    return f"{shown} ({ratio:.2f}x{', behind the bar' if ratio < bar else ''})"


def _kept(seconds: dict[str, list[float]]) -> str:
    """Return what is left of the speed of decode with a full cache, of one engine: rounds are
    compared with themselves, so that a machine that drifts changes nothing."""
    empty, full = (seconds.get(cell.key) for cell in (CELLS[0], CELLS[3]))
    return f"{ratio_of(full, empty):.0%}" if empty and full else "-"


def _absences(model: dict[str, Any]) -> list[str]:
    lines = [f"- Missing: {title}: {why}" for title, why in model["missing"].items()]
    for run in model["runs"]:
        for title, record in run["engines"].items():
            for what, why in record["failed"].items():
                lines.append(f"- Missing: {title}, {run['threads']} threads, {what}: {why}")
    return [f"{line}\n" for line in lines]


def _run(model: dict[str, Any], threads: int) -> dict[str, Any]:
    run: dict[str, Any] = next(run for run in model["runs"] if run["threads"] == threads)
    return run


def _versions(results: dict[str, Any]) -> str:
    versions: dict[str, str] = {}
    for model in results["models"]:
        for run in model["runs"]:
            for title, record in run["engines"].items():
                if "version" in record:
                    versions.setdefault(title, record["version"])
    return ", ".join(f"{title} {version}" for title, version in versions.items()) + "."
