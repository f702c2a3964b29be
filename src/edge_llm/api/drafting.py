"""A draft program beside the one that it drafts for: opened, checked for one vocabulary, and given
its part of the memory."""

from __future__ import annotations

from dataclasses import replace

from edge_llm.api.rooms import Room, room_of
from edge_llm.errors import ConfigError
from edge_llm.program.cost import stored_bytes
from edge_llm.program.file import Program
from edge_llm.runner.backends.registry import Backend, open_executor
from edge_llm.runner.config import RunnerConfig
from edge_llm.runner.engine.draft_program import READY_TOKENS, DraftProgram
from edge_llm.runner.executor import Limits
from edge_llm.tokenizers.tokenizer import Tokenizer, tokenizer_of


def shared_budget(
    program: Program, draft: Program, config: RunnerConfig, module: Backend
) -> tuple[RunnerConfig, RunnerConfig]:
    """Return the options for a program and for its draft program, which share the budget for keys
    and values by what a position takes of each."""
    sizes = []
    for one in (program, draft):
        kv_dtype = config.kv_dtype or one.documents.model.kv_dtype
        sizes.append(sum(group.block_bytes for group in module.groups(one.plan, kv_dtype)))
    beside = replace(
        config,
        draft=False,
        sessions=None,
        adapters={},
        context=min(config.context or program.plan.context, draft.plan.context),
        step_tokens=max(config.step_tokens, config.max_sequences * READY_TOKENS),
    )
    if config.kv_budget is None:
        return config, beside
    part = config.kv_budget * sizes[1] // max(1, sum(sizes))
    own = replace(config, kv_budget=max(1, config.kv_budget - part))
    return own, replace(beside, kv_budget=max(1, part))


def memory_of(draft: Program, config: RunnerConfig, module: Backend) -> int:
    """Return the bytes that a draft program takes: weights, and the most for its states."""
    return stored_bytes(draft.plan) + _room(draft, config, module).bytes


def open_draft(
    draft: Program, config: RunnerConfig, *, module: Backend, backend: str
) -> DraftProgram:
    """Return a draft program that runs; closing it closes ``draft`` too.

    Raises:
        CapacityError: its part of the budget holds not even one block.
        NativeError: the backend refuses it.
    """
    room = _room(draft, config, module)
    executor = open_executor(
        draft,
        Limits(
            max_tokens=room.step_tokens,
            max_rows=config.max_sequences,
            max_sequences=config.max_sequences,
            blocks=room.blocks,
            kv_dtype=room.kv_dtype,
            context=room.context,
            threads=config.threads,
        ),
        name=backend,
    )
    return DraftProgram(
        executor,
        windows=tuple(group.window for group in module.groups(draft.plan, room.kv_dtype)),
        block_size=module.block_size(),
        context=room.context,
        vocab=draft.plan.vocab,
        close=draft.close,
    )


def check_drafts(program: Program, draft: Program) -> None:
    """Check that a draft program predicts as many tokens as the program has.

    Raises:
        ConfigError: it does not.
    """
    if draft.plan.bidirectional:
        raise _refusal(program, draft, "it is for vectors alone")
    size, expected = draft.documents.tokenizer.size, program.documents.tokenizer.size
    if size != expected:
        raise _refusal(program, draft, f"it has {size} tokens, expected {expected}")


def check_vocabulary(program: Program, draft: Program, tokenizer: Tokenizer) -> None:
    """Check that the tokens of a draft program are those of the program, whose ``tokenizer`` it is.

    Raises:
        ConfigError: they are not, or it predicts none.
        TokenizerError: its tokenizer cannot be used.
    """
    check_drafts(program, draft)
    if program.tokenizer_digest == draft.tokenizer_digest:
        return
    other = tokenizer_of(draft)
    for token in range(tokenizer.facts.size):
        texts = tokenizer.token_bytes(token), other.token_bytes(token)
        if texts[0] != texts[1]:
            raise _refusal(
                program,
                draft,
                f"its token {token} is {texts[1]!r:.60}, expected {texts[0]!r:.60}",
            )


def _refusal(program: Program, draft: Program, why: str) -> ConfigError:
    return ConfigError(
        f"{draft.path.name} cannot draft for {program.path.name}: {why}",
        hint="a draft program is a smaller model of the same family, with the same vocabulary",
    )


def _room(draft: Program, config: RunnerConfig, module: Backend) -> Room:
    return room_of(draft.plan, draft.documents.model.kv_dtype, config, module)
