"""How much memory the blocks of states may take."""

from __future__ import annotations

import ctypes
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edge_llm.errors import CapacityError
from edge_llm.runner.config import RunnerConfig
from edge_llm.runner.engine.blocks import window_blocks
from edge_llm.runner.executor import StateGroup

# Where control groups are mounted -> the file of a group's limit, of both versions of them.
_CGROUPS = {"/sys/fs/cgroup": "memory.max", "/sys/fs/cgroup/memory": "memory.limit_in_bytes"}
_OWN_CGROUPS = "/proc/self/cgroup"


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of the container or service around this
    process."""
    return min([_installed_memory(), *_limits()])


def _limits() -> Iterator[int]:
    """Yield the limits of this process's control groups and of those around them."""
    try:
        lines = Path(_OWN_CGROUPS).read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    groups = [line.split(":", 2)[2].strip("/") for line in lines if line.count(":") >= 2]
    for root, name in _CGROUPS.items():
        for own in {"", *groups}:
            for group in (Path(root, own), *Path(root, own).parents):
                if not group.is_relative_to(root):
                    break
                with suppress(OSError):
                    text = (group / name).read_text(encoding="ascii").strip()
                    if text.isdecimal():  # "max": no limit
                        yield int(text)


def _installed_memory() -> int:
    if sys.platform == "win32":
        status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX: its own size, then bytes in all
        ctypes.windll.kernel32.GlobalMemoryStatusEx(status)
        return int(status[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory() -> int | None:
    """Return the bytes that could be taken now without swapping, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return min(int(value.split()[0]) * 1024, machine_memory())
    return None


def fitting_steps(
    config: RunnerConfig, context: int, block_size: int, groups: Sequence[StateGroup]
) -> RunnerConfig:
    """Return ``config`` with as many tokens in a step as leave a whole context room: a step holds
    blocks of states with a window that are given back after it, and those of folds are large. A
    step has no fewer than a block, or than sequences."""
    least = max(block_size, config.max_sequences)
    while config.step_tokens > least:
        cost = sum(
            _needed(group, -(-context // block_size), config.step_tokens, block_size)
            * group.block_bytes
            for group in groups
        )
        if cost <= _budget(config):
            break
        config = replace(config, step_tokens=max(config.step_tokens // 2, least))
    return config


def _budget(config: RunnerConfig) -> int:
    return machine_memory() // 4 if config.kv_budget is None else config.kv_budget


def _needed(group: StateGroup, blocks: int, step_tokens: int, block_size: int) -> int:
    """Return the blocks that a sequence of ``blocks`` full blocks holds at a time."""
    if not group.window:
        return blocks
    return min(blocks, window_blocks(group.window, step_tokens, block_size))


def block_counts(
    config: RunnerConfig, context: int, block_size: int, groups: Sequence[StateGroup]
) -> tuple[int, ...]:
    """Return how many blocks each group of states gets from one budget: what ``kv_budget`` pays
    for; without one, ``max_sequences`` half-full contexts but at least one whole, in at most a
    quarter of the machine's memory. Each gets its share of what a half-full context takes, but at
    least what the longest sequence takes that the budget could hold alone.

    Raises:
        CapacityError: not even one block of each group fits.
    """

    def needed(group: StateGroup, blocks: int) -> int:
        return _needed(group, blocks, config.step_tokens, block_size)

    whole = -(-context // block_size)
    wanted = [config.max_sequences * needed(group, -(-whole // 2)) for group in groups]
    budget = _budget(config)
    if config.kv_budget is None:
        most = [max(needed(g, whole), n) for g, n in zip(groups, wanted, strict=True)]
    else:
        most = [config.max_sequences * needed(group, whole) for group in groups]
    sizes = [group.block_bytes for group in groups]

    def cost(blocks: int) -> int:
        return sum(needed(g, blocks) * size for g, size in zip(groups, sizes, strict=True))

    counts = _shares(budget, wanted, most, sizes)
    longest = bisect_right(range(1, whole + 1), budget, key=cost)
    least = [needed(group, longest) for group in groups]
    if any(count < own for count, own in zip(counts, least, strict=True)):
        more = [n - own for n, own in zip(most, least, strict=True)]
        rest = _shares(budget - cost(longest), wanted, more, sizes)
        counts = [own + n for own, n in zip(least, rest, strict=True)]
    if counts and min(counts) < 1:
        size = sum(sizes)
        raise CapacityError(
            f"the KV budget is {budget} bytes, one block of {block_size} tokens takes {size}"
        )
    return tuple(counts)


def _shares(budget: int, wanted: list[int], most: list[int], sizes: list[int]) -> list[int]:
    """Divide ``budget`` bytes in proportion to ``wanted`` counts of blocks of ``sizes`` bytes, of
    each at most ``most``; what one does not take is divided among the rest."""
    counts = list(most)
    rest = set(range(len(wanted)))
    while rest:
        total = sum(wanted[i] * sizes[i] for i in rest)
        full = {i for i in rest if wanted[i] * budget // total >= most[i]}
        if not full:
            for i in rest:
                counts[i] = wanted[i] * budget // total
            break
        budget -= sum(most[i] * sizes[i] for i in full)
        rest -= full
    return counts
