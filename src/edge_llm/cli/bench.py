"""``edge-llm bench``: tokens per second of a program, and how near that is to the machine."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import Progress, human_bytes, print_json, table
from edge_llm.cli.html import add_html_argument, check_page
from edge_llm.cli.programs import add_model_argument, examined_program
from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.runner.evaluation.measure import Measure


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "bench",
        help="measure prefill and decode speed",
        description="Medians of prefill and decode speed of a program file, straight on the "
        "executor, a prompt in steps as long as the engine's. GB/s counts weights and KV entries "
        "read, GOP/s multiplications and additions.",
    )
    add_model_argument(parser)
    parser.add_argument("--prompt-tokens", type=_counts, default=(128, 512), metavar="N,N")
    parser.add_argument("--decode-tokens", type=_counts, default=(128,), metavar="N,N")
    parser.add_argument(
        "--depth",
        type=_counts,
        metavar="N,N",
        help="tokens already in the cache (default: 0; for a page also 1024 and 4096)",
    )
    parser.add_argument(
        "--threads",
        type=_counts,
        metavar="N,N",
        help="default: the physical cores; for a page also fewer",
    )
    parser.add_argument(
        "--power",
        choices=("full", "saver"),
        default="full",
        help="saver: half of the threads, which sleep while they wait (default: full)",
    )
    parser.add_argument("--repeat", type=int, default=5, help="runs to take the median of")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="say where the time goes instead: per operator and per layer, beside this machine's "
        "ceilings, for each prefill and for one token at each depth",
    )
    parser.add_argument(
        "--profile-json", metavar="FILE", help="write the profile as JSON as well; implies it"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write typical steps in Chrome's trace format (chrome://tracing, ui.perfetto.dev) as "
        "well; implies --profile",
    )
    add_html_argument(
        parser, "speed by depth and threads, a step's time by operator, memory by context"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement. ``kind`` is "prefill" or "decode"; speeds are medians; ``gb_per_second`` and
    ``gop_per_second`` follow from program.cost. ``seconds`` has every repeat, in the order of
    measuring."""

    kind: str
    tokens: int
    depth: int
    threads: int
    tokens_per_second: float
    gb_per_second: float
    gop_per_second: float
    seconds: tuple[float, ...]


def run(arguments: argparse.Namespace) -> int:
    from edge_llm.native import isa

    if arguments.repeat < 1:
        raise RequestError(f"--repeat is {arguments.repeat}, expected at least 1")
    if not any((*arguments.prompt_tokens, *arguments.decode_tokens)):
        raise RequestError("nothing to measure: --prompt-tokens and --decode-tokens are 0")
    profile = arguments.profile or arguments.profile_json or arguments.trace
    if profile and arguments.power != "full":
        raise RequestError("--power saver cannot be profiled: a profile has all threads")
    if arguments.html:
        if profile:
            raise RequestError("--html draws a profile of its own: expected no other with it")
        check_page(arguments.html, "bench")
    path = examined_program(arguments)
    _complete(arguments, path)
    if profile:
        from edge_llm.cli.profile import run_profile

        return run_profile(arguments, path)
    progress = Progress()
    rows: list[Row] = []
    load_seconds = 0.0
    try:
        progress("load", 0, 1)
        for threads in arguments.threads:
            measured, load_seconds = bench(
                path,
                prompt_tokens=arguments.prompt_tokens,
                decode_tokens=arguments.decode_tokens,
                depths=arguments.depth,
                threads=threads,
                repeat=arguments.repeat,
                progress=progress,
                saver=arguments.power == "saver",
            )
            rows += measured
    finally:
        progress.close()
    peak_rss = peak_memory()
    if arguments.json:
        print_json(
            {
                "rows": [asdict(row) for row in rows],
                "load_seconds": load_seconds,
                "peak_rss_bytes": peak_rss,
                "isa": isa(),
            }
        )
    else:
        print(
            table(
                ("KIND", "TOKENS", "DEPTH", "THREADS", "TOKENS/S", "GB/S", "GOP/S"),
                [tuple(asdict(row).values())[:-1] for row in rows],  # the last has every repeat
            )
        )
        memory = "" if peak_rss is None else f"peak memory {human_bytes(peak_rss)}, "
        print(f"load {load_seconds:.3f} s, {memory}{isa()} kernels")
    if arguments.html:
        from edge_llm.cli.bench_page import write_bench_page

        write_bench_page(arguments, path, rows, peak_rss)
    return 0


def _complete(arguments: argparse.Namespace, path: Path) -> None:
    """Fill in depths and thread counts that were not given: a page has several to compare."""
    from edge_llm.cli.bench_page import usual_depths, usual_threads

    longest = max((*arguments.prompt_tokens, *arguments.decode_tokens))
    if arguments.depth is None:
        arguments.depth = usual_depths(path, longest) if arguments.html else (0,)
    if arguments.threads is None:
        arguments.threads = usual_threads() if arguments.html else (0,)


def peak_memory() -> int | None:
    """Return the bytes of memory that this process held at most; None on Windows, which is not
    asked."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def bench(
    path: Path,
    *,
    prompt_tokens: tuple[int, ...],
    decode_tokens: tuple[int, ...],
    depths: tuple[int, ...],
    threads: int,
    repeat: int,
    progress: Progress,
    saver: bool = False,
) -> tuple[list[Row], float]:
    """Return the rows for one thread count, and the seconds to open and load the program. Depths
    take turns in each repeat, so that a machine that gets slower or faster meanwhile makes none of
    them look better.

    Raises:
        RequestError: a depth and a length do not fit the program's context.
    """
    from edge_llm.runner.engine.requests import check_predicts
    from edge_llm.runner.evaluation.measure import loaded

    start = time.perf_counter()
    longest = max(depths) + max((*prompt_tokens, *decode_tokens), default=0)
    with loaded(path, longest, threads, saver=saver) as measure:
        load_seconds = time.perf_counter() - start
        if any(decode_tokens):
            hint = "--decode-tokens 0 measures prompts alone"
            check_predicts(bidirectional=measure.plan.bidirectional, hint=hint)
        run = {"prefill": measure.prefill, "decode": measure.decode}
        jobs = [("prefill", tokens) for tokens in prompt_tokens if tokens]
        jobs += [("decode", tokens) for tokens in decode_tokens if tokens]
        # A position always holds the same token, so what is measured leaves the cache as it was.
        measure.fill(max(depths))
        cells = [(kind, tokens, depth) for depth in depths for kind, tokens in jobs]
        seconds: list[list[float]] = [[] for _ in cells]
        for kind, tokens, depth in cells:
            run[kind](tokens, depth)  # warms up
        for number in range(repeat):
            for place, (kind, tokens, depth) in enumerate(cells):
                seconds[place].append(run[kind](tokens, depth))
                progress("bench", number * len(cells) + place + 1, len(cells) * repeat)
        rows = [
            _row(measure, kind, tokens, depth, found)
            for (kind, tokens, depth), found in zip(cells, seconds, strict=True)
        ]
    return rows, load_seconds


def _row(measure: Measure, kind: str, tokens: int, depth: int, found: list[float]) -> Row:
    from edge_llm.program.cost import decode_bytes, prefill_operations

    plan, limits = measure.plan, measure.executor.limits

    seconds = statistics.median(found)
    if kind == "prefill":
        read = -(-tokens // limits.max_tokens) * decode_bytes(plan, depth, limits.kv_dtype)
        work = prefill_operations(plan, tokens, depth)
    else:
        read = sum(decode_bytes(plan, depth + i, limits.kv_dtype) for i in range(tokens))
        work = sum(prefill_operations(plan, 1, depth + i) for i in range(tokens))
    return Row(
        kind,
        tokens,
        depth,
        measure.staff.workers,
        tokens / seconds,
        read / seconds / 1e9,
        work / seconds / 1e9,
        tuple(found),
    )


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = (-1,)
    if any(count < 0 for count in counts):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected whole numbers like 128,512")
    return counts
