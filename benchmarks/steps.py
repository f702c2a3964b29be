"""A step that decodes several sequences, by operators: where the time of serving many users goes.

    python benchmarks/steps.py [--model FILE|NAME] [--sequences 1,8] [--depth 900] [--shared 0]
                               [--threads 0] [--steps 200]

Each sequence has one token behind ``--depth`` others, of which the first ``--shared`` are the same
for all, rounded down to whole blocks. Prints the mean of the fastest tenth of the steps.
EDGE_LLM_ISA and EDGE_LLM_NATIVE choose kernels and library, as everywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from document import table, where

from edge_llm import native
from edge_llm.catalogue import find_program
from edge_llm.errors import EdgeLLMError
from edge_llm.program.file import Program
from edge_llm.runner.backends import registry
from edge_llm.runner.backends.native import NativeExecutor
from edge_llm.runner.config import DEFAULT_STEP_TOKENS
from edge_llm.runner.evaluation.profile import Phase, Profile, Run, StepTimes, summarize
from edge_llm.runner.executor import Batch, Limits, RowSampler, Segment
from edge_llm.runner.sampling import SamplingParams

GREEDY = RowSampler(SamplingParams(temperature=0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m", metavar="FILE|NAME")
    parser.add_argument("--sequences", default="1,8")
    parser.add_argument("--depth", type=int, default=900)
    parser.add_argument("--shared", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    try:
        path = find_program(options.model)
        counts = [int(count) for count in options.sequences.split(",")]
        if min(*counts, options.steps) < 1 or min(options.depth, options.shared) < 0:
            raise ValueError("expected sequences and steps from 1 on, depth and shared from 0 on")
        with Program.open(path, draft=False) as program:
            profiles = [
                measured(
                    program, count, options.depth, options.shared, options.threads, options.steps
                )
                for count in counts
            ]
    except (EdgeLLMError, ValueError) as exc:
        parser.error(str(exc))
    title = (
        f"{Path(path).name}: a token each behind {options.depth}, {options.shared} of them shared"
    )
    print(f"{where(native.isa())}\n\n{title}; ms\n\n{rows_of(counts, profiles)}")


def measured(
    program: Program, count: int, depth: int, shared: int, threads: int, steps: int
) -> Profile:
    """Return the profile of a step of ``count`` sequences.

    Raises:
        ValueError: the plan keeps something else than keys and values of all positions, which
            sequences could share.
        EdgeLLMError: it cannot be loaded, with room for so much.
    """
    plan = program.plan
    if shared and any(group.kind != "kv" or group.window for group in plan.groups):
        raise ValueError("--shared: the program has states that are not of all positions")
    limits = Limits(
        max_tokens=DEFAULT_STEP_TOKENS,
        max_rows=count,
        max_sequences=count,
        blocks=tuple(count * blocks for blocks in registry.blocks_of(plan, depth + 1)),
        kv_dtype=program.documents.model.kv_dtype,
        threads=threads,
    )
    tables = registry.block_tables(limits.blocks, count)
    whole = min(shared, depth) // registry.backend("native").block_size()
    for blocks in tables:
        blocks[:, :whole] = blocks[0, :whole]
    executor = cast(NativeExecutor, registry.open_executor(program, limits))
    try:

        def tokens(
            sequence: int, begin: int, end: int
        ) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
            size = program.documents.tokenizer.size
            return ((np.arange(begin, end) * 7919 + 31 * sequence) % size).astype(np.int32)

        for sequence in range(count):
            for begin in range(0, depth, DEFAULT_STEP_TOKENS):
                part = tokens(sequence, begin, min(begin + DEFAULT_STEP_TOKENS, depth))
                executor.step(Batch.of(Segment(part, (), begin, sequence), block_tables=tables))
        batch = Batch.of(
            *(
                Segment(tokens(sequence, depth, depth + 1), [GREEDY], depth, sequence)
                for sequence in range(count)
            ),
            block_tables=tables,
        )
        executor.step(batch)  # warms up
        executor.start_profile(steps)
        for _ in range(steps):
            executor.step(batch)
        phases = executor.phases(wanted=True)
        runs = [Run((executor.profiled_step(number),), (depth,)) for number in range(steps)]

        def phases_of(step: StepTimes) -> Sequence[Phase]:
            return phases

        return summarize(plan, runs, phases_of, limits.kv_dtype)
    finally:
        executor.close()


def rows_of(counts: Sequence[int], profiles: Sequence[Profile]) -> str:
    """Return a table with a row for each operator, the costliest of the last profile first."""
    columns = [
        {row.operator: row.seconds for row in profile.by_operator()}
        | {"waiting": profile.waited, "start and end": profile.edges, "all": profile.seconds}
        for profile in profiles
    ]
    rows = [
        [name, *(f"{1e3 * column.get(name, 0.0):.3f}" for column in columns)]
        for name in columns[-1]
    ]
    head = ["operator", *(f"{count} sequence{'s' if count > 1 else ''}" for count in counts)]
    return table(head, rows)


if __name__ == "__main__":
    main()
