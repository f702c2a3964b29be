"""Opening a program file and starting an engine on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edge_llm.api.llm import LLM
from edge_llm.program.cost import kv_reader, weight_bytes
from edge_llm.program.file import Program
from edge_llm.runner.backends.registry import backend as find_backend
from edge_llm.runner.backends.weights import Weights, in_huge_pages
from edge_llm.runner.config import DEFAULT_STEP_TOKENS, RunnerConfig
from edge_llm.runner.engine import Engine
from edge_llm.runner.executor import Limits
from edge_llm.runner.memory import page_count
from edge_llm.runner.requests import EngineFacts

if TYPE_CHECKING:
    from edge_llm.tokenizers.tokenizer import Tokenizer

_T = TypeVar("_T")

_LOGITS_BYTES = 64 * 1024 * 1024  # bounds the logits of one step, and so the rows of evaluations


def load(
    path: str | Path,
    *,
    threads: int = 0,
    kv_budget: int | None = None,
    backend: str = "native",
    max_sequences: int = 8,
    step_tokens: int = DEFAULT_STEP_TOKENS,
    huge_pages: str = "auto",
) -> LLM:
    """Open a program file and start an engine on it.

    ``threads`` 0 takes the physical cores. ``kv_budget``: bytes for keys and values, None: enough
    for ``max_sequences`` half-full contexts, at most a quarter of the machine's memory.
    ``max_sequences``: requests that run at once, others wait. ``step_tokens`` bounds the tokens
    computed at once, over all requests. ``backend`` is "native" or "torch". ``huge_pages``: "auto"
    asks the kernel to hold the file in huge pages, "copy" copies the weights into such pages if
    memory allows, "off" does neither.

    Raises:
        ProgramError: the file cannot be read, or is damaged, hostile or too new.
        TokenizerError: the tokenizer in it cannot be used.
        ConfigError: an option out of range, or no such backend.
        CapacityError: the KV budget holds not even one page.
        NativeError: the native core is missing or refused the program.
        MissingDependencyError: the backend needs a package that is not installed.
    """
    config = RunnerConfig(
        threads=threads,
        kv_budget=kv_budget,
        max_sequences=max_sequences,
        step_tokens=step_tokens,
        huge_pages=huge_pages,
    )
    module = find_backend(backend)
    program = Program.open(path, huge_pages=huge_pages == "auto")
    tokenizer = _beside(lambda: _tokenizer(program))
    try:
        plan = program.plan
        page_tokens = module.block_size()
        kv_dtype = program.documents.model.kv_dtype
        groups = module.groups(plan, kv_dtype)
        block_bytes = sum(group.block_bytes for group in groups)
        weights: Weights = {weight.tensor: program.weight_data(weight) for weight in plan.weights}
        if huge_pages == "copy":
            weights = in_huge_pages(weights)
            program.release_pages()
        executor = module.load(
            plan,
            weights,
            sampleable=program.documents.tokenizer.size,
            limits=Limits(
                max_tokens=config.step_tokens,
                max_rows=min(
                    config.step_tokens,
                    max(config.max_sequences, _LOGITS_BYTES // (4 * plan.vocab)),
                ),
                max_sequences=config.max_sequences,
                blocks=(page_count(config, plan.context, page_tokens, block_bytes),) * len(groups),
                kv_dtype=kv_dtype,
                threads=config.threads,
            ),
        )
        read, kv = weight_bytes(plan), kv_reader(plan, kv_dtype)
        facts = EngineFacts(
            context=plan.context,
            vocab=plan.vocab,
            block_size=page_tokens,
            stop_ids=frozenset(program.documents.generation.stop_ids),
            read_bytes=lambda depths: read + sum(map(kv, depths)),
            sampleable=program.documents.tokenizer.size,
        )
        engine = Engine(executor, facts)
        try:
            return LLM(program, engine, tokenizer())
        except BaseException:
            engine.stop()
            raise
    except BaseException:
        program.close()
        raise


def _tokenizer(program: Program) -> Tokenizer:
    from edge_llm.tokenizers.tokenizer import tokenizer_of

    return tokenizer_of(program)


def _beside(work: Callable[[], _T]) -> Callable[[], _T]:
    """Begin the work in a thread of its own. Return a function that waits for it, and gives its
    result or raises its error."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, name="edge-llm-tokenizer", daemon=True)
    thread.start()

    def wait() -> _T:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return wait
