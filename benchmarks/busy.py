"""Decode and prefill while other processes want the same cores, one thread and two, beside
llama.cpp.

    python benchmarks/busy.py [--model smollm2-135m] [--busy 0,1,2] [--rounds 9] [--no-peer]

Ours goes through the engine, which chooses the number of workers step by step and has some rounds,
which do not count, to find out. Every process that competes is a loop in Python that never waits.
All take turns within a round, another one first each time, and the medians of the rounds count.
Ours runs in two processes for each number of threads, whose rounds count together: how much the two
with one thread differ is what such a run cannot tell. Both run what peers/llama_server.py serves.
Writes a section of docs/performance.md, unless --quick is given.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import llama_cpp_tools
from document import replace_section, table, where
from llama_server import files
from process import EngineProcess
from programs import MODELS
from registry import CONTEXT, HERE

OURS = "edge-llm"
PROMPT = 512
DECODED, DECODED_THEIRS = 384, 96  # tokens; theirs take several seconds beside two loops
# By engine, threads and kind: of each process, the seconds of a token in each round.
Seconds = dict[tuple[str, int, str], list[list[float]]]
FINDING_OUT = 3  # rounds that do not count: who else is there is found out in them


@contextmanager
def competing(count: int) -> Iterator[None]:
    """Run so many processes that take all the time they get."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5)  # the system spreads them over the cores
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m", choices=tuple(MODELS))
    parser.add_argument("--busy", default="0,1,2", help="numbers of competing processes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--quick", action="store_true", help="print, and write no document")
    options = parser.parse_args()
    try:
        counts = [int(count) for count in options.busy.split(",")]
    except ValueError as exc:
        parser.error(f"--busy: {exc}")
    if min(counts) < 0 or options.rounds < 1:
        parser.error("expected --busy from 0 on, and --rounds from 1 on")
    if not options.no_peer:
        llama_cpp_tools.install()
    ours, theirs = files(options.model)
    run: dict[str, tuple[list[str], dict[str, str]]] = {
        OURS: ([sys.executable, str(HERE / "time_engine.py"), str(ours)], {})
    }
    if not options.no_peer:
        command = [str(llama_cpp_tools.PYTHON), str(HERE / "time_llama_cpp.py"), str(theirs)]
        run[f"llama.cpp, {theirs.name}"] = command, llama_cpp_tools.ENVIRONMENT
    rows = []
    with ExitStack() as stack:
        engines: dict[tuple[str, int], list[EngineProcess]] = {}
        for name, (command, environment) in run.items():
            for threads in (1, 2) * (2 if name == OURS else 1):
                sized = [*command, "--threads", str(threads), "--context", str(CONTEXT)]
                engine = stack.enter_context(EngineProcess(sized, environment))
                engine.ask("prefill", depth=0, tokens=64)
                engine.ask("decode", depth=0, tokens=4)
                engines.setdefault((name, threads), []).append(engine)
        for busy in counts:
            seconds = measured(engines, busy, options.rounds)
            for name in run:
                for kind in ("decode", "prefill"):
                    one, two = (speed(*seconds[name, threads, kind]) for threads in (1, 2))
                    ratio = f"{two / one:.2f}"
                    if name == OURS:
                        first, again = map(speed, seconds[name, 1, kind])
                        ratio += f" (bar 1: {verdict(two / one)}; one by one: {again / first:.2f})"
                    rows.append([str(busy), kind, name, f"{one:.0f}", f"{two:.0f}", ratio])
        versions = ", ".join(f"{name} {engines[name, 1][0].version}" for name in run)
    head = ["competing", "", "", "one thread, tokens/s", "two threads, tokens/s", "ratio"]
    title = f"## {MODELS[options.model]} beside processes that never wait"
    text = f"{title}\n\n{where(versions)}\n\n{table(head, rows)}"
    print(text)
    if not options.quick:
        replace_section("busy", text)


def verdict(ratio: float) -> str:
    """Return whether two threads are as fast as one, as far as such a run can tell."""
    if ratio >= 1:
        return "pass"
    return "equal within 3 %" if ratio >= 0.97 else "miss"


def measured(
    engines: dict[tuple[str, int], list[EngineProcess]], busy: int, rounds: int
) -> Seconds:
    """Return what every process took, beside so many others."""
    kinds = ("decode", "prefill")
    seconds: Seconds = {
        (*key, kind): [[] for _ in engines[key]] for key in engines for kind in kinds
    }
    turns = deque((*key, number) for key in engines for number in range(len(engines[key])))
    with competing(busy):
        for number in range(-FINDING_OUT, rounds):
            turns.rotate()  # who comes after whom tells a little
            for name, threads, process in turns:
                for kind in kinds:
                    # no prompt that the prefix cache has
                    fresh = kind == "prefill" and name == OURS
                    turn = (busy + 1) * (rounds + FINDING_OUT) + number
                    depth = turn * PROMPT if fresh else 0
                    tokens = tokens_of(name, kind)
                    engine = engines[name, threads][process]
                    answer = engine.ask(kind, depth=depth, tokens=tokens)
                    if number >= 0:
                        seconds[name, threads, kind][process].append(answer["seconds"] / tokens)
    return seconds


def speed(*rounds: list[float]) -> float:
    """Return the tokens a second in the median of the rounds of some processes."""
    return 1 / statistics.median(chain(*rounds))


def tokens_of(name: str, kind: str) -> int:
    """Return how many tokens an engine computes in a turn."""
    if kind == "prefill":
        return PROMPT
    return DECODED if name == OURS else DECODED_THEIRS


if __name__ == "__main__":
    main()
