"""How much room the states of a program get."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_llm.program.plan import Plan
from edge_llm.runner.backends.registry import Backend
from edge_llm.runner.config import RunnerConfig
from edge_llm.runner.engine.memory import block_counts, fitting_steps


@dataclass(frozen=True, slots=True)
class Room:
    """The room that the states of a program get: ``blocks`` of each group, which take ``bytes``, in
    a cache of ``kv_dtype``, for ``context`` tokens and steps of ``step_tokens``."""

    kv_dtype: str
    context: int
    step_tokens: int
    blocks: tuple[int, ...]
    bytes: int


def room_of(plan: Plan, own_kv_dtype: str, config: RunnerConfig, module: Backend) -> Room:
    """Return the room that the states of a plan get with these options.

    Raises:
        CapacityError: the KV budget holds not even one block.
    """
    kv_dtype = config.kv_dtype or own_kv_dtype
    context = config.context or plan.context
    block_size, groups = module.block_size(), module.groups(plan, kv_dtype)
    length = min(context, plan.context)
    if plan.bidirectional:  # a text is one step
        config = replace(config, step_tokens=max(config.step_tokens, length))
    else:
        config = fitting_steps(config, length, block_size, groups)
    blocks = block_counts(config, length, block_size, groups)
    size = sum(count * group.block_bytes for count, group in zip(blocks, groups, strict=True))
    return Room(kv_dtype, context, config.step_tokens, blocks, size)
