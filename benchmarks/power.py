"""Speed and processor time of a token with all power, and with power saved.

    python benchmarks/power.py [--model FILE|NAME] [--threads 0] [--rounds 9]

Prints decode and prefill of one client with all power and with ``saver``, in turns; medians count.
Watts are not measured: processor time is what a core that is awake costs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from array import array
from contextlib import ExitStack

from document import table, where

import edge_llm
from edge_llm.catalogue import find_program
from edge_llm.errors import EdgeLLMError
from edge_llm.runner.engine.power import PowerChoice
from edge_llm.runner.sampling import SamplingParams

PROMPT, DECODED = 512, 96
CHOICES: tuple[PowerChoice, ...] = ("full", "saver")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m", metavar="FILE|NAME")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found: dict[tuple[PowerChoice, str], list[tuple[float, float]]] = {}
    try:
        path = find_program(options.model)
    except EdgeLLMError as exc:
        parser.error(str(exc))
    with ExitStack() as stack:
        programs = {
            choice: stack.enter_context(
                edge_llm.load(path, threads=options.threads, max_sequences=1, power=choice)
            )
            for choice in CHOICES
        }
        for number in range(-1, options.rounds):  # the first does not count
            for choice, llm in programs.items():
                for work in ("prefill", "decode"):
                    measured = run(llm, work, number + 1)
                    if number >= 0:
                        found.setdefault((choice, work), []).append(measured)
    rows = []
    for (choice, work), times in found.items():
        speed, cost = (statistics.median(column) for column in zip(*times, strict=True))
        rows.append([choice, work, f"{speed:.0f}", f"{cost:.2f}"])
    print(f"{where()}\n\n{table(['power', '', 'tokens/s', 'processor ms a token'], rows)}")


def run(llm: edge_llm.LLM, work: str, number: int) -> tuple[float, float]:
    """Return the tokens a second, and the milliseconds of processor time that each took."""
    size = PROMPT if work == "prefill" else 8
    # The prompts of two rounds have nothing in common, so that none is in the prefix cache.
    ids = array("i", ((7919 * number + 31 * place) % 20000 + 100 for place in range(size)))
    tokens = PROMPT if work == "prefill" else DECODED
    params = SamplingParams(
        temperature=0,
        max_tokens=1 if work == "prefill" else DECODED,
        ignore_eos=True,
        speculation="off",
    )
    seconds, processor = time.perf_counter(), time.process_time()
    llm.generate(ids, params)
    seconds, processor = time.perf_counter() - seconds, time.process_time() - processor
    return tokens / seconds, 1e3 * processor / tokens


if __name__ == "__main__":
    main()
