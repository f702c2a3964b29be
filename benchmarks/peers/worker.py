"""The process that times one engine: requests in, seconds out, one JSON object a line each way.

Every script time_NAME.py has an engine and calls `serve`. The standard library only: the script
is run by the interpreter of the peer's environment.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

CHUNK = 512  # prompt tokens of one step, where the engine leaves that to its caller


class Engine(Protocol):
    """One loaded model with one cache. Token ids are those of `token_ids`."""

    version: str
    vocab: int

    def fill(self, depth: int) -> None:
        """Make the cache hold the first ``depth`` tokens."""

    def prefill(self, tokens: int) -> float:
        """Return the seconds to compute that many more tokens, and the logits of the last one."""

    def decode(self, tokens: int) -> float:
        """Return the seconds to compute that many more tokens one by one, logits each time."""

    def greedy(self, ids: list[int]) -> int:
        """Return the likeliest token after ``ids``, from an empty cache."""


def token_ids(begin: int, count: int, vocab: int) -> list[int]:
    """Return the tokens ``begin`` to ``begin + count`` of a fixed pseudo-random text."""
    return [(position * 7919 + 1) % vocab for position in range(begin, begin + count)]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def serve(load: Callable[[str, int, int], Engine]) -> None:
    """Load the model of the command line (``MODEL --threads N --context N``), then answer
    requests from stdin until it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # engines print what they like

    start = time.perf_counter()
    engine = load(options.model, options.threads, options.context)
    seconds = time.perf_counter() - start
    print(json.dumps({"load_seconds": seconds, "version": engine.version}), file=answers)
    for line in sys.stdin:
        print(json.dumps(answer(engine, json.loads(line))), file=answers)


def answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if request["do"] == "greedy":
            return {"id": engine.greedy(request["ids"])}
        engine.fill(request["depth"])
        if request["do"] == "fill":
            return {}
        work = {"prefill": engine.prefill, "decode": engine.decode}[request["do"]]
        return {"seconds": work(request["tokens"])}
    except Exception as exc:  # the caller reports it as the reason why the figure is missing
        return {"error": f"{type(exc).__name__}: {exc}"}
