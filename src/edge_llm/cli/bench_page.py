"""``edge-llm bench --html``: what was measured as a page of charts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import Progress, say
from edge_llm.cli.html import command_of, machine_facts, write_page
from edge_llm.cli.prediction import OVERHEAD_BYTES

if TYPE_CHECKING:
    from edge_llm.charts.chart import Chart
    from edge_llm.charts.memory import Memory
    from edge_llm.charts.operators import Step
    from edge_llm.cli.bench import Row
    from edge_llm.program.file import Program

DEPTHS = (0, 1024, 4096)
_CONTEXTS = 9  # lengths of context in the chart of memory


def usual_depths(path: Path, longest: int) -> tuple[int, ...]:
    """Return the depths of `DEPTHS` that leave room for ``longest`` more tokens; always 0."""
    from edge_llm.program.file import Program

    with Program.open(path, draft=False) as program:
        room = program.plan.context - longest
    return tuple(depth for depth in DEPTHS if depth == 0 or depth <= room)


def usual_threads() -> tuple[int, ...]:
    """Return 1, 2, 4, ... up to the physical cores, and these."""
    from edge_llm.native import default_threads

    cores = default_threads()
    return tuple(sorted({*(2**n for n in range(cores.bit_length())), cores}))


def write_bench_page(
    arguments: argparse.Namespace, path: Path, rows: list[Row], peak: int | None
) -> None:
    """Profile a few steps, draw all charts and write the page to ``arguments.html``.

    ``rows`` were measured by `bench`, ``peak`` is the memory that this took.

    Raises:
        RequestError: the page cannot be written.
    """
    from edge_llm.charts.memory import memory_by_context
    from edge_llm.charts.operators import time_by_operator
    from edge_llm.charts.page import page
    from edge_llm.charts.speed import Speed, speed_by_depth, speed_by_threads
    from edge_llm.program.file import Program

    prompts = [tokens for tokens in arguments.prompt_tokens if tokens]
    threads = max(row.threads for row in rows)
    depths = sorted({min(arguments.depth), max(arguments.depth)})
    steps = _profile(path, threads, depths, max(prompts, default=0), arguments.repeat)
    speeds = [Speed(row.kind, row.tokens, row.depth, row.threads, row.seconds) for row in rows]
    charts: list[Chart] = [speed_by_depth(speeds)]
    notes = []
    if len({speed.threads for speed in speeds}) > 1:
        charts.append(speed_by_threads(speeds))
    else:
        notes.append("Speed was measured with one number of threads: --threads 1,2 compares two.")
    charts.append(time_by_operator(steps))
    held = max(arguments.depth) + max((*prompts, *arguments.decode_tokens))
    with Program.open(path, draft=False) as program:
        charts.append(memory_by_context(_memory(program, held, peak)))
        facts = _facts(program, sorted({speed.threads for speed in speeds}), arguments.repeat)
        title = f"Speed of {program.documents.model.name}"
    command = command_of(arguments)
    text = page(title, facts=facts, command=command, charts=charts, notes=notes)
    write_page(arguments.html, text)
    say(f"wrote {arguments.html}")


def _profile(path: Path, threads: int, depths: list[int], prompt: int, repeat: int) -> list[Step]:
    """Return the profiles of one token at each depth, and of a prompt of that many tokens after
    the least of them (0: none)."""
    from edge_llm.cli.profile import profiled
    from edge_llm.runner.evaluation.measure import loaded

    progress = Progress()
    steps = []
    try:
        with loaded(path, max(depths) + max(prompt, 1), threads) as measure:
            measure.fill(max(depths))
            work = [(1, depth) for depth in depths]
            work += [(prompt, depths[0])] if prompt > 1 else []
            for tokens, depth in work:
                profile, _ = profiled(measure, tokens, depth, repeat=repeat, progress=progress)
                steps.append(_step(profile))
    finally:
        progress.close()
    return steps


def _step(profile: Any) -> Step:
    from edge_llm.charts.operators import Step

    kind = "decode" if profile.tokens == 1 else f"prefill {profile.tokens:,}"
    seconds = {row.operator: row.seconds for row in profile.by_operator()}
    seconds["waiting at barriers"] = profile.waited
    seconds["start and end"] = profile.edges
    return Step(f"{kind} after {profile.depth:,}", seconds)


def _memory(program: Program, held: int, peak: int | None) -> Memory:
    """Return the memory of a program by context; ``held`` tokens had room when ``peak`` bytes were
    the most that the process held."""
    from edge_llm.charts.memory import Memory
    from edge_llm.program.cost import kv_reader
    from edge_llm.program.ops import KV_DTYPES

    plan = program.plan
    count = min(_CONTEXTS - 1, plan.context)
    contexts = [plan.context * part // count for part in range(count + 1)]
    caches = {}
    for dtype in KV_DTYPES:
        size = kv_reader(plan, dtype)
        caches[dtype] = [size(context - 1) if context else 0 for context in contexts]
    return Memory(
        file=program.file_bytes,
        rest=OVERHEAD_BYTES,
        contexts=contexts,
        caches=caches,
        own=program.documents.model.kv_dtype,
        measured=None if peak is None else (held, peak),
    )


def _facts(program: Program, threads: list[int], repeat: int) -> list[tuple[str, str]]:
    model = program.documents.model
    scheme = program.documents.recipe.get("scheme", "unknown scheme")
    return [
        ("program", f"{program.path.name}: {scheme}, KV {model.kv_dtype}, {plan_words(program)}"),
        *machine_facts(),
        ("threads", ", ".join(map(str, threads))),
        ("repeats", f"{repeat}, depths in turn"),
    ]


def plan_words(program: Program) -> str:
    """Return size and context of a program in words."""
    from edge_llm.cli.console import human_bytes

    return f"{human_bytes(program.file_bytes)}, context {program.plan.context:,}"
