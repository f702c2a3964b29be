"""Opening a program file and starting an engine on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from hashlib import sha256
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from edge_llm import abi
from edge_llm.api.about import ModelFacts, about_of
from edge_llm.api.adapters import with_adapters
from edge_llm.api.answers import syntax_of
from edge_llm.api.drafting import (
    check_drafts,
    check_vocabulary,
    memory_of,
    open_draft,
    shared_budget,
)
from edge_llm.api.llm import LLM
from edge_llm.api.preparing import chat_template_of
from edge_llm.api.rooms import Room, room_of
from edge_llm.errors import ConfigError
from edge_llm.program.cost import kv_reader, stored_bytes, weight_bytes
from edge_llm.program.file import Program
from edge_llm.program.summary import summary_of
from edge_llm.runner.backends.registry import backend as find_backend
from edge_llm.runner.backends.registry import check_context, open_executor
from edge_llm.runner.backends.weights import Weights, in_huge_pages
from edge_llm.runner.config import DEFAULT_SESSIONS_BYTES, DEFAULT_STEP_TOKENS, RunnerConfig
from edge_llm.runner.engine.constraints import mask_of
from edge_llm.runner.engine.draft_program import DraftProgram
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.engine.power import Power
from edge_llm.runner.engine.requests import EngineFacts
from edge_llm.runner.engine.saved import SavedBlocks
from edge_llm.runner.executor import Limits

if TYPE_CHECKING:
    from edge_llm.tokenizers.tokenizer import Tokenizer

_P = ParamSpec("_P")
_T = TypeVar("_T")

_LOGITS_BYTES = 64 * 1024 * 1024  # bounds the logits of one step, and so the rows of evaluations


def load(
    path: str | Path,
    *,
    threads: int = 0,
    context: int | None = None,
    kv_dtype: str | None = None,
    kv_budget: int | None = None,
    backend: str = "native",
    max_sequences: int = 8,
    step_tokens: int = DEFAULT_STEP_TOKENS,
    huge_pages: str = "auto",
    draft: bool | str | Path = False,
    sessions: str | Path | None = None,
    sessions_bytes: int = DEFAULT_SESSIONS_BYTES,
    context_policy: str = "error",
    power: str = "full",
    adapters: Mapping[str, str | Path] | None = None,
) -> LLM:
    """Open a program file and start an engine on it.

    Args:
        path: a program file, its name in the store, or what becomes one now and is kept: a GGUF
            file, a checkpoint's folder, ``hf:ORG/NAME``, a model of the catalogue, which is fetched
            if need be.
        threads: 0 takes the physical cores.
        context: the most tokens of a prompt and its answer together; None takes what the program
            allows. A smaller one takes less memory.
        kv_dtype: how keys and values are stored: "f32", "f16" or "i8" (with a scale for each head
            and token); None takes what the program recommends.
        kv_budget: bytes for keys and values; None takes enough for ``max_sequences`` half-full
            contexts, at most a quarter of the machine's memory.
        backend: "native" or "torch".
        max_sequences: requests that run at once, others wait.
        step_tokens: bounds the tokens computed at once, over all requests. They are fewer where a
            whole context would have no room beside the states of so many.
        huge_pages: "auto" asks the kernel to hold the file in huge pages, "copy" copies the weights
            into such pages if memory allows, "off" does neither.
        draft: True loads the program's draft method too, which ``speculation="draft"`` needs;
            every step then computes some more, and keys and values take more memory. Or another
            program, found as ``path`` is, that is smaller and has the same vocabulary: it proposes
            tokens where that pays, and changes none. It has a part of the memory for keys and
            values.
        sessions: a folder that keeps what prompts and answers have computed, for the next time
            that this program is loaded: their tokens are in it. None keeps nothing.
        sessions_bytes: what all programs may keep there; what was not used for longest goes.
        context_policy: what becomes of a prompt that is too long for the context: "error" refuses
            it; "truncate-middle" leaves out the oldest turns of a chat, or the middle of a text,
            which `RequestStatistics.context` tells; "sliding-window" does too, and where an answer
            comes to the end of the context it goes on: the beginning and what was last are read
            again without what was between.
        power: "full"; "saver" takes half of the threads, which sleep while they wait and do not
            spin; "auto" does so on battery and where the processor is throttled for its heat, as
            far as Linux tells. It changes no result.
        adapters: folders of LoRA adapters as PEFT saves them, by names that requests choose one by
            (``adapter="NAME"``); those that choose none get the model itself, to the bit.

    Raises:
        SourceError: no such name, or it cannot be fetched (AmbiguousNameError: several programs
            have it).
        CheckpointError, ExportError: no program could be made of a checkpoint, or an adapter's
            folder is damaged or adapts another model.
        ProgramError: the file cannot be read, or is damaged, hostile or too new.
        TokenizerError: the tokenizer in it cannot be used.
        ConfigError: an option out of range, a longer context than the program allows, no such
            backend, no draft method in the program, a draft program of another vocabulary, or a
            kind of adapter that is not supported.
        CapacityError: the KV budget holds not even one block.
        NativeError: the native core is missing or refused the program.
        MissingDependencyError: the backend needs a package that is not installed.
    """
    config = RunnerConfig(
        threads=threads,
        context=context,
        kv_dtype=kv_dtype,
        kv_budget=kv_budget,
        max_sequences=max_sequences,
        step_tokens=step_tokens,
        huge_pages=huge_pages,
        draft=_found(draft) if isinstance(draft, str | PathLike) else draft,
        sessions=Path(sessions) if isinstance(sessions, str | PathLike) else sessions,
        sessions_bytes=sessions_bytes,
        context_policy=context_policy,  # type: ignore[arg-type]  # which it checks
        power=power,  # type: ignore[arg-type]  # likewise
        adapters=_folders(adapters),
    )
    return load_with(path, config, backend=backend)


def _folders(adapters: Any) -> Any:
    """Return folders as paths; what is none stays, and is refused by `RunnerConfig`."""
    if not isinstance(adapters, Mapping):
        return {} if adapters is None else adapters
    return {
        name: Path(folder) if isinstance(folder, str | PathLike) else folder
        for name, folder in adapters.items()
    }


def _awaited(blocking: Callable[_P, _T]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    async def in_thread(*arguments: _P.args, **options: _P.kwargs) -> _T:
        import asyncio  # here: a program that only blocks starts faster without

        return await asyncio.to_thread(blocking, *arguments, **options)

    in_thread.__name__ = in_thread.__qualname__ = f"a{blocking.__name__}"
    in_thread.__doc__ = (
        f"Do as `{blocking.__name__}` does, without holding up the event loop meanwhile."
    )
    in_thread.__signature__ = signature(blocking)  # type: ignore[attr-defined]
    return in_thread


aload = _awaited(load)


def _found(path: str | PathLike[str]) -> Path:
    """Return the program file that is meant: a path, or what a text names."""
    if not isinstance(path, str) or (os.sep in path and path.endswith(".edge")):
        return Path(path)
    from edge_llm.export.convert import program_of

    return program_of(path)


def name_of(path: Path) -> str:
    """Return the name of the model in a program, as its header has it; of what has none, the name
    of the file."""
    return summary_of(path).name or path.stem


def memory_needed(path: Path, config: RunnerConfig, *, backend: str = "native") -> int:
    """Return the bytes of memory that weights and states of a program take, at most, once it is
    loaded with these options.

    Raises:
        ProgramError, ConfigError, CapacityError, NativeError: as `load`.
    """
    module = find_backend(backend)
    with _opened(path, config) as program:
        drafting = 0
        if isinstance(config.draft, Path):
            with _opened(config.draft, replace(config, draft=False, context=None)) as draft:
                check_drafts(program, draft)
                config, own = shared_budget(program, draft, config, module)
                drafting = memory_of(draft, own, module)
        room = room_of(program.plan, program.documents.model.kv_dtype, config, module)
        beside = with_adapters(program, config.adapters)
        return stored_bytes(beside.plan if beside else program.plan) + room.bytes + drafting


def facts_of(path: Path, config: RunnerConfig) -> ModelFacts:
    """Return what is known of a program without loading it.

    Raises:
        ProgramError, TokenizerError, TemplateError, ConfigError: as `load`.
    """
    with _opened(path, config) as program:
        tokenizer = _tokenizer(program)
        template = chat_template_of(program, tokenizer)
        return ModelFacts(
            program.documents.model.name,
            program.digest,
            config.context or program.plan.context,
            about_of(program, None if template is None else syntax_of(template, tokenizer)),
        )


def _opened(path: Path, config: RunnerConfig) -> Program:
    program = Program.open(path, huge_pages=config.huge_pages == "auto", draft=config.draft is True)
    try:
        check_context(program, config.context or 0)
        if config.draft is True and program.plan.draft is None:
            raise ConfigError(
                f"{program.path.name} has no draft method, which speculation draft needs",
                hint="a program has one if its checkpoint has layers that predict further tokens "
                "(mtp.*); speculation ngram needs none, and a smaller program can draft too",
            )
    except BaseException:
        program.close()
        raise
    return program


def load_with(
    path: str | Path, config: RunnerConfig, *, backend: str = "native", name: str | None = None
) -> LLM:
    """Open a program file and start an engine on it, with options that were read before; ``name``
    is another name for its model. Raises as `load`."""
    module = find_backend(backend)
    if not isinstance(path, str | PathLike):
        raise ConfigError(f"path is of type {type(path).__name__}, expected a text or a Path")
    if backend != "native" and config.power != "full":
        raise ConfigError(f"power is {config.power}, which the backend {backend} cannot obey")
    program = _opened(_found(path), config)
    tokenizer = _beside(lambda: _tokenizer(program))
    draft: DraftProgram | None = None
    drafting = 0
    try:
        plan = program.plan
        beside = with_adapters(program, config.adapters)
        if isinstance(config.draft, Path):
            config, draft, drafting = _drafting(program, tokenizer(), config, backend)
        room = room_of(plan, program.documents.model.kv_dtype, config, module)
        weights: Weights | None = None
        if config.huge_pages == "copy":
            mapped = {w.tensor: program.weight_data(w) for w in plan.weights}
            copied = in_huge_pages(mapped)
            weights = None if copied is mapped else copied
            program.release_pages()
        executor = open_executor(
            program,
            Limits(
                max_tokens=room.step_tokens,
                max_rows=min(
                    room.step_tokens,
                    max(config.max_sequences, _LOGITS_BYTES // (4 * plan.vocab)),
                ),
                max_sequences=config.max_sequences,
                blocks=room.blocks,
                kv_dtype=room.kv_dtype,
                context=room.context,
                threads=config.threads,
            ),
            name=backend,
            weights=weights,
            beside=beside,
        )
        read, kv = weight_bytes(plan), kv_reader(plan, room.kv_dtype)
        facts = EngineFacts(
            context=room.context,
            vocab=plan.vocab,
            block_size=module.block_size(),
            stop_ids=frozenset(program.documents.generation.stop_ids),
            read_bytes=lambda depths: read + sum(map(kv, depths)),
            sampleable=program.documents.tokenizer.size,
            windows=tuple(group.window for group in module.groups(plan, room.kv_dtype)),
            hidden_states=plan.embed is not None,
            drafts=plan.draft is not None,
            bidirectional=plan.bidirectional,
            context_policy=config.context_policy,
            adapters=beside.digests if beside else {},
            breakers=lambda texts: mask_of(tokenizer().breakers.ids(texts), plan.vocab),
        )
        try:
            engine = Engine(
                executor,
                facts,
                _saved(program, config, room, backend),
                draft,
                Power(config.power),
            )
        except BaseException:
            executor.close()
            raise
        try:
            memory = stored_bytes(beside.plan if beside else plan) + room.bytes + drafting
            return LLM(program, engine, tokenizer(), name=name, memory=memory)
        except BaseException:
            engine.stop()
            raise
    except BaseException:
        if draft is not None:
            draft.close()
        program.close()
        raise


def _drafting(
    program: Program, tokenizer: Tokenizer, config: RunnerConfig, backend: str
) -> tuple[RunnerConfig, DraftProgram, int]:
    """Return the options that a draft program leaves, the program as it runs, and the bytes that it
    takes. Raises as `load`."""
    assert isinstance(config.draft, Path)
    module = find_backend(backend)
    draft = _opened(config.draft, replace(config, draft=False, context=None))
    try:
        check_vocabulary(program, draft, tokenizer)
        rest, own = shared_budget(program, draft, config, module)
        running = open_draft(draft, own, module=module, backend=backend)
        return rest, running, memory_of(draft, own, module)
    except BaseException:
        draft.close()
        raise


def _saved(program: Program, config: RunnerConfig, room: Room, backend: str) -> SavedBlocks | None:
    """Return where the blocks of sessions are kept. What they hold depends on the program, on how
    keys and values are stored, on the states that are there, and on who computes them."""
    from edge_llm import __version__

    if config.sessions is None:
        return None
    if backend != "native":
        raise ConfigError(f"sessions cannot be kept by the backend {backend}, but by native")
    parts = (
        program.digest,
        room.kv_dtype,
        str(config.draft is True),
        str(abi.ABI_VERSION),
        __version__,
    )
    key = sha256("\n".join(parts).encode()).hexdigest()[:32]
    return SavedBlocks(config.sessions, key, config.sessions_bytes)


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
