"""Feeds readers with damaged inputs and prints what happened as JSON, by target.

    python worker.py TARGET... --seeds FOLDER --scratch FOLDER --first N --count N --jobs N

Input number i of a target depends on the seeds and i alone, so that any failure can be run again
(``--first I --count 1``). This process imports what the readers need and forks a child for each
stretch of inputs, with bounded memory; it sees what kills a child, or what one hangs on.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from targets import TARGETS

from edge_llm.errors import EdgeLLMError

MAX_FAILURES = 20  # of one target
# Inputs of one child: a tokenizer of the `tokenizers` library leaves some KiB behind when it goes.
MAX_STRETCH = 5000
HANG_SECONDS = 60.0  # on one input; most take milliseconds


@dataclass
class Stretch:
    """Inputs ``first`` to ``end`` of a target, and the child that reads them."""

    target: str
    first: int
    end: int
    folder: Path
    progress: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 8))
    process: int = 0
    seen: int = -1
    since: float = 0.0


@dataclass
class Report:
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)  # seconds, input
    memory: int = 0  # bytes that the address space grew by at most
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="+", choices=TARGETS)
    for name in ("seeds", "scratch"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("first", "count"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the last input there")
    arguments = parser.parse_args()

    # One thread each: threads of a parent do not live on in its children.
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", RUST_BACKTRACE="0")
    shutil.rmtree(arguments.scratch, ignore_errors=True)
    seeds = arguments.scratch / "seeds"  # on the file system of the inputs, which are links to it
    shutil.copytree(arguments.seeds, seeds)
    for name in arguments.targets:
        TARGETS[name].prepare()
        for seed in sorted((seeds / name).iterdir()):
            TARGETS[name].read(seed)  # what is refused undamaged would test nothing

    share = min(MAX_STRETCH, -(-arguments.count // arguments.jobs))
    waiting = [
        Stretch(
            name,
            first,
            min(first + share, arguments.first + arguments.count),
            arguments.scratch / f"{name}-{first}",
        )
        for name in arguments.targets
        for first in range(arguments.first, arguments.first + arguments.count, share)
    ]
    reports = {name: Report() for name in arguments.targets}
    running: list[Stretch] = []
    try:
        while waiting or running:
            while waiting and len(running) < arguments.jobs:
                running.append(waiting.pop(0))
                _start(running[-1], seeds, arguments.keep)
            for stretch in list(running):
                if _ended(stretch, reports[stretch.target]):
                    running.remove(stretch)
                    failures = len(reports[stretch.target].failures)
                    if stretch.first < stretch.end and failures < MAX_FAILURES:
                        waiting.insert(0, stretch)
            time.sleep(0.01)
    finally:
        for stretch in running:
            os.kill(stretch.process, signal.SIGKILL)
    json.dump({name: vars(report) for name, report in reports.items()}, sys.stdout, indent=1)


def _start(stretch: Stretch, seeds: Path, keep: bool) -> None:
    stretch.folder.mkdir(exist_ok=True)
    stretch.seen, stretch.since = -1, time.monotonic()
    stretch.process = os.fork()
    if stretch.process == 0:
        status = 1
        try:
            _read(stretch, seeds, keep)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)


def _ended(stretch: Stretch, report: Report) -> bool:
    """Tell whether the child is done, in one way or another; ``first`` is then what is left to
    do."""
    process, status = os.waitpid(stretch.process, os.WNOHANG)
    at = struct.unpack("q", stretch.progress[:8])[0]
    if process == 0:
        if at != stretch.seen:
            stretch.seen, stretch.since = at, time.monotonic()
        if time.monotonic() - stretch.since < HANG_SECONDS:
            return False
        os.kill(stretch.process, signal.SIGKILL)
        os.waitpid(stretch.process, 0)
        report.failures.append({"input": at, "error": f"hung for {HANG_SECONDS:g} s"})
        stretch.first = at + 1
    elif status != 0:
        what = os.waitstatus_to_exitcode(status)
        report.failures.append({"input": at, "error": f"ended with {what}"})
        stretch.first = at + 1
    else:
        found = json.loads((stretch.folder / "report").read_bytes())
        report.outcomes.update(found["outcomes"])
        report.failures += found["failures"]
        report.slowest = max(report.slowest, tuple(found["slowest"]))
        report.memory = max(report.memory, found["memory"])
        report.seconds += found["seconds"]
        stretch.first = stretch.end
    return True


def _read(stretch: Stretch, seeds: Path, keep: bool) -> None:
    """In the child: every input of a stretch, one after the other."""
    target = TARGETS[stretch.target]
    warnings.simplefilter("error")  # of numpy above all, whose overflows are wrong values
    sys.unraisablehook = lambda _: None  # a rendering that runs out of time ends as it can
    folder = stretch.folder / "input"
    begin, start = time.perf_counter(), _status("VmSize")
    limit = start + target.memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    report = Report()
    for index in range(stretch.first, stretch.end):
        stretch.progress[:8] = struct.pack("q", index)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        target.make(Random(f"{stretch.target} {index}"), seeds / stretch.target, folder)
        since = time.perf_counter()
        try:
            target.read(folder)
            report.outcomes["accepted"] += 1
        except EdgeLLMError as exc:
            report.outcomes[type(exc).__name__] += 1
        except BaseException:
            error = traceback.format_exc(limit=-6)[-3000:]
            report.failures.append({"input": index, "error": error})
            if len(report.failures) == MAX_FAILURES:
                break
        report.slowest = max(report.slowest, (time.perf_counter() - since, index))
    report.memory = _status("VmPeak") - start
    report.seconds = time.perf_counter() - begin
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    (stretch.folder / "report").write_text(json.dumps(vars(report)), encoding="utf-8")


def _status(name: str) -> int:
    """A size of this process in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


if __name__ == "__main__":
    main()
