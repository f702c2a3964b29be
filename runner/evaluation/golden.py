"""The golden record of a program: does it compute here what it computed when it was exported?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ProgramError
from edge_llm.program.file import Program
from edge_llm.program.tensors import Golden
from edge_llm.runner.backends import registry
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.engine.events import Event, TokenEvent
from edge_llm.runner.engine.requests import EngineFacts
from edge_llm.runner.evaluation.drafts import DRAFTED, drafts_after
from edge_llm.runner.evaluation.logits import collect_logits, run_to_end
from edge_llm.runner.executor import Limits
from edge_llm.runner.sampling import SamplingParams


def check_golden(program: Program, *, threads: int = 0) -> None:
    """Run the golden prompts on the native backend and compare the likeliest ids, their logits
    and the greedy continuations, bit for bit. A program without a golden record passes.

    Raises:
        ProgramError: something differs; the message says what and where.
        RequestError, ContextLengthError: a golden prompt is empty, or longer than the context.
        NativeError, CapacityError: the program cannot be run here.
    """
    golden = program.golden
    if golden is None:
        return
    engine = _engine(program, golden, threads)
    engine.start()
    try:
        for index in range(len(golden.tokens)):
            _check_prompt(engine, golden, index, f"{program.path}: golden prompt {index}")
    finally:
        engine.stop()
    if golden.drafts is not None:
        _check_drafts(program, golden, golden.drafts, threads)


def _check_prompt(engine: Engine, golden: Golden, index: int, name: str) -> None:
    prompt, following = _unpadded(golden.tokens[index]), _unpadded(golden.next[index])
    # In one chunk, as they were recorded: where tokens see those behind them, it matters.
    last = collect_logits(engine, prompt, chunk=len(prompt) or None)[-1]
    ranked = np.argsort(-last, kind="stable")[: golden.top_ids.shape[1]]
    if not np.array_equal(ranked, golden.top_ids[index]):
        raise ProgramError(f"{name}: the likeliest ids are not those recorded")
    difference = np.abs(last[ranked] - golden.top_logits[index]).max()
    if not difference == 0.0:
        raise ProgramError(f"{name}: logits differ from those recorded by up to {difference:.3g}")
    got = _continue(engine, prompt, len(following))
    if got != following:
        pairs = enumerate(zip(got, following, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), len(got))  # it may be cut by the context
        raise ProgramError(f"{name}: the continuation differs from token {place} on")


def _check_drafts(
    program: Program, golden: Golden, drafts: NDArray[np.int32], threads: int
) -> None:
    texts = [
        [*_unpadded(tokens), *_unpadded(following)[:1]]
        for tokens, following in zip(golden.tokens, golden.next, strict=True)
    ]
    executor = registry.open_executor(program, _limits(program, golden, threads))
    try:
        tables = registry.block_tables(executor.limits.blocks)
        got = drafts_after(executor, tables, texts)
    finally:
        executor.close()
    for index, (ids, recorded) in enumerate(zip(got, drafts, strict=True)):
        if ids != _unpadded(recorded):
            name = f"{program.path}: golden prompt {index}"
            raise ProgramError(
                f"{name}: the draft method predicts other tokens than those recorded"
            )


def _continue(engine: Engine, prompt: list[int], count: int) -> list[int]:
    ids: list[int] = []

    def take(event: Event) -> None:
        if isinstance(event, TokenEvent):
            ids.append(event.id)

    params = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
    run_to_end(lambda on_event: engine.submit(prompt, params, on_event), take)
    return ids


def _limits(program: Program, golden: Golden, threads: int) -> Limits:
    longest = golden.tokens.shape[1]
    total = min(longest + max(golden.next.shape[1], 1 + DRAFTED), program.plan.context)
    return Limits(
        max_tokens=longest,
        max_rows=longest,
        max_sequences=1,
        blocks=registry.blocks_of(program.plan, total),
        kv_dtype=program.documents.model.kv_dtype,
        threads=threads,
    )


def _engine(program: Program, golden: Golden, threads: int) -> Engine:
    plan = program.plan
    executor = registry.open_executor(program, _limits(program, golden, threads))
    return Engine(
        executor,
        EngineFacts(
            context=plan.context,
            vocab=plan.vocab,
            block_size=registry.backend("native").block_size(),
            windows=tuple(group.window for group in plan.groups),
        ),
    )


def _unpadded(ids: NDArray[np.int32]) -> list[int]:
    return [int(token) for token in ids[ids >= 0]]
