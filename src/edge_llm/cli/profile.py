"""``edge-llm bench --profile``: where the time of a step goes."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import Progress, print_json, table
from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.native import Ceilings
    from edge_llm.runner.evaluation.measure import Measure
    from edge_llm.runner.evaluation.profile import PhasesOf, Profile, Row, Run

DECODE_STEPS = 8  # for each run that --repeat asks for: they are short


def run_profile(arguments: argparse.Namespace, path: Path) -> int:
    """Profile every thread count, depth and prompt; print text or JSON, and write files."""
    from edge_llm import native
    from edge_llm.runner.evaluation.measure import loaded

    progress = Progress()
    prompts = [tokens for tokens in arguments.prompt_tokens if tokens]
    documents: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    texts: list[str] = []
    try:
        for threads in arguments.threads:
            limits = native.ceilings(threads)
            for depth in arguments.depth:
                with loaded(path, depth + max((*prompts, 1)), threads) as measure:
                    measure.fill(depth)
                    for tokens in [*prompts, *([1] if any(arguments.decode_tokens) else [])]:
                        kind = "decode" if tokens == 1 else "prefill"
                        profile, phases_of = profiled(
                            measure, tokens, depth, repeat=arguments.repeat, progress=progress
                        )
                        documents.append(document(kind, profile, limits))
                        texts.append(describe(kind, profile, limits))
                        events += _events(measure, profile, phases_of, kind, len(documents))
    finally:
        progress.close()
    whole = {"isa": native.isa(), "profiles": documents}
    if arguments.profile_json:
        _write(arguments.profile_json, whole)
    if arguments.trace:
        _write(arguments.trace, {"displayTimeUnit": "ns", "traceEvents": events})
    if arguments.json:
        print_json(whole)
    else:
        print("\n\n".join(texts))
    return 0


def profiled(
    measure: Measure, tokens: int, depth: int, *, repeat: int, progress: Progress
) -> tuple[Profile, PhasesOf]:
    """Return the profile of steps that put ``tokens`` tokens after ``depth`` cached ones, again and
    again (one token is decoded, and run more often), and the function that gives the phases of its
    steps."""
    from edge_llm.runner.evaluation.profile import Run, StepTimes, summarize

    executor = measure.executor
    work = measure.decode if tokens == 1 else measure.prefill
    count = repeat * (DECODE_STEPS if tokens == 1 else 1)
    depths = tuple(range(depth, depth + tokens, measure.step_tokens))
    work(tokens, depth)  # warms up
    executor.start_profile(count * len(depths))
    for done in range(count):
        work(tokens, depth)
        progress("profile", done + 1, count)
    phases = {wanted: executor.phases(wanted=wanted) for wanted in (False, True)}
    steps = [executor.profiled_step(number) for number in range(count * len(depths))]
    executor.start_profile(0)
    runs = [
        Run(tuple(steps[begin : begin + len(depths)]), depths)
        for begin in range(0, len(steps), len(depths))
    ]

    def phases_of(step: StepTimes) -> Any:
        return phases[step.rows > 0]

    return summarize(measure.plan, runs, phases_of, measure.executor.limits.kv_dtype), phases_of


def document(kind: str, profile: Profile, limits: Ceilings) -> dict[str, Any]:
    """Return a profile as JSON values: seconds, bytes, operations."""

    def rows(found: list[Row] | tuple[Row, ...]) -> list[dict[str, Any]]:
        return [asdict(row) | {"share": row.seconds / profile.seconds} for row in found]

    return {
        "kind": kind,
        "tokens": profile.tokens,
        "depth": profile.depth,
        "threads": profile.threads,
        "runs": profile.runs,
        "seconds": profile.seconds,
        "waited": profile.waited,
        "edges": profile.edges,
        "ceilings": asdict(limits),
        "operators": rows(profile.by_operator()),
        "layers": rows(profile.by_layer()),
        "rows": rows(profile.rows),
    }


def describe(kind: str, profile: Profile, limits: Ceilings) -> str:
    """Return a profile as text."""
    what = f"decode of one token after {profile.depth}"
    if kind == "prefill":
        what = f"prefill of {profile.tokens} tokens after {profile.depth}"
    head = (
        f"{what}: {1e3 * profile.seconds:.3f} ms, {profile.tokens / profile.seconds:.1f} tokens/s, "
        f"{profile.threads} threads, {limits.isa}\n(mean of the fastest {profile.runs})\n"
        f"ceilings of {limits.threads} threads: {limits.bytes_per_second / 1e9:.1f} GB/s read, "
        f"{limits.operations_per_second / 1e9:.0f} GOP/s int8"
    )
    operators = [_cells(row, profile, limits) for row in profile.by_operator()]
    operators += [
        ("waiting at barriers", None, *_time(profile.waited, profile), *[None] * 7),
        ("start and end", None, *_time(profile.edges, profile), *[None] * 7),
        _cells(_total(profile), profile, limits),
    ]
    layers = [_cells(row, profile, limits) for row in profile.by_layer()]
    return "\n".join(
        (
            head,
            "",
            table(("OPERATOR", *_HEAD), operators),
            "",
            table(("LAYER", *_HEAD), layers),
        )
    )


_HEAD = ("PHASES", "US", "%", "WAIT US", "MB", "GB/S", "OF READ %", "MOP", "GOP/S", "OF INT8 %")


def _time(seconds: float, profile: Profile) -> tuple[float, float]:
    return 1e6 * seconds, 100 * seconds / profile.seconds


def _cells(row: Row, profile: Profile, limits: Ceilings) -> tuple[object, ...]:
    seconds = row.seconds or math.inf  # a clock may be too coarse for a small phase
    read, did = row.bytes / seconds, row.operations / seconds
    return (
        row.operator,
        row.phases,
        *_time(row.seconds, profile),
        1e6 * row.waited,
        row.bytes / 1e6 or None,
        read / 1e9 or None,
        100 * read / limits.bytes_per_second or None,
        row.operations / 1e6 or None,
        did / 1e9 or None,
        100 * did / limits.operations_per_second or None,
    )


def _total(profile: Profile) -> Row:
    """Return one row for all of a run, waits included."""
    from edge_llm.runner.evaluation.profile import Row

    return Row(
        "all",
        None,
        sum(row.phases for row in profile.rows),
        profile.seconds,
        profile.waited,
        sum(row.bytes for row in profile.rows),
        sum(row.operations for row in profile.rows),
    )


def _events(
    measure: Measure, profile: Profile, phases_of: PhasesOf, kind: str, process: int
) -> list[dict[str, Any]]:
    from edge_llm.runner.evaluation.profile import trace_events

    name = f"{kind} {profile.tokens} after {profile.depth}, {profile.threads} threads"
    run: Run = profile.typical
    kv_dtype = measure.executor.limits.kv_dtype
    return trace_events(measure.plan, run, phases_of, kv_dtype, process=process, name=name)


def _write(name: str, document: Mapping[str, Any]) -> None:
    try:
        Path(name).write_text(json.dumps(document), encoding="utf-8")
    except OSError as exc:
        raise RequestError(f"cannot write {name}: {exc.strerror or exc}") from exc
