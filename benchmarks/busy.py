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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import llama_cpp_tools
from document import replace_section, table, where
from llama_server import files
from process import EngineProcess
from programs import MODELS
from registry import CONTEXT, HERE

OURS, AGAIN = "edge-llm", "edge-llm again"
PROMPT = 512
DECODED, DECODED_THEIRS = 384, 96  # tokens; theirs take several seconds beside two loops
Seconds = dict[tuple[str, int, str], list[float]]  # by engine, threads and kind
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
    counts = [int(count) for count in options.busy.split(",")]
    if not options.no_peer:
        llama_cpp_tools.install()
    ours, theirs = files(options.model)
    run: dict[str, tuple[list[str], dict[str, str]]] = {
        name: ([sys.executable, str(HERE / "time_engine.py"), str(ours)], {})
        for name in (OURS, AGAIN)
    }
    if not options.no_peer:
        command = [str(llama_cpp_tools.PYTHON), str(HERE / "time_llama_cpp.py"), str(theirs)]
        run[f"llama.cpp, {theirs.name}"] = command, llama_cpp_tools.ENVIRONMENT
    rows = []
    with ExitStack() as stack:
        engines = {}
        for name, (command, environment) in run.items():
            for threads in (1, 2):
                sized = [*command, "--threads", str(threads), "--context", str(CONTEXT)]
                engine = stack.enter_context(EngineProcess(sized, environment))
                engine.ask("prefill", depth=0, tokens=64)
                engine.ask("decode", depth=0, tokens=4)
                engines[name, threads] = engine
        for busy in counts:
            seconds = measured(engines, busy, options.rounds)
            for name in run:
                if name == AGAIN:
                    continue
                for kind in ("decode", "prefill"):
                    alike = (OURS, AGAIN) if name == OURS else (name,)
                    one, two = (speed(seconds, alike, threads, kind) for threads in (1, 2))
                    ratio = f"{two / one:.2f}"
                    if name == OURS:
                        again, first = (speed(seconds, (name,), 1, kind) for name in (AGAIN, OURS))
                        ratio += f" (bar 1: {verdict(two / one)}; one by one: {again / first:.2f})"
                    rows.append([str(busy), kind, name, f"{one:.0f}", f"{two:.0f}", ratio])
        versions = ", ".join(f"{name} {engines[name, 1].version}" for name in run if name != AGAIN)
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


def measured(engines: dict[tuple[str, int], EngineProcess], busy: int, rounds: int) -> Seconds:
    """Return the seconds of a token in each round, by engine, threads and kind."""
    seconds: Seconds = {}
    with competing(busy):
        for number in range(-FINDING_OUT, rounds):
            turns = deque(engines.items())
            turns.rotate(number)  # who comes after whom tells a little
            for (name, threads), engine in turns:
                for kind in ("decode", "prefill"):
                    # no prompt that the prefix cache has
                    fresh = kind == "prefill" and name in (OURS, AGAIN)
                    turn = (busy + 1) * (rounds + FINDING_OUT) + number
                    depth = turn * PROMPT if fresh else 0
                    tokens = tokens_of(name, kind)
                    answer = engine.ask(kind, depth=depth, tokens=tokens)
                    if number >= 0:
                        each = answer["seconds"] / tokens
                        seconds.setdefault((name, threads, kind), []).append(each)
    return seconds


def speed(seconds: Seconds, names: Iterable[str], threads: int, kind: str) -> float:
    """Return the tokens a second of the rounds of some engines, in the median."""
    return 1 / statistics.median(s for name in names for s in seconds[name, threads, kind])


def tokens_of(name: str, kind: str) -> int:
    """Return how many tokens an engine computes in a turn."""
    if kind == "prefill":
        return PROMPT
    return DECODED if name in (OURS, AGAIN) else DECODED_THEIRS


if __name__ == "__main__":
    main()
