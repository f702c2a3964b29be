"""How much memory the KV pages may take."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from edge_llm.errors import CapacityError
from edge_llm.runner.config import RunnerConfig

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory() -> int:
    """Bytes of memory of this machine, or of the container around this process."""
    total = _installed_memory()
    for name in _CGROUP_LIMITS:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():  # "max": no limit
            total = min(total, int(text))
    return total


def _installed_memory() -> int:
    if sys.platform == "win32":
        status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX: its own size, then bytes in all
        ctypes.windll.kernel32.GlobalMemoryStatusEx(status)
        return int(status[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory() -> int | None:
    """Bytes that could be taken now without swapping, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return min(int(value.split()[0]) * 1024, machine_memory())
    return None


def page_count(config: RunnerConfig, context: int, page_tokens: int, page_bytes: int) -> int:
    """KV pages for ``config``: what ``kv_budget`` pays for; without one, ``max_sequences``
    half-full contexts but at least one whole, in at most a quarter of the machine's memory.

    Raises:
        CapacityError: not even one page fits.
    """
    whole = -(-context // page_tokens)
    if config.kv_budget is None:
        budget = machine_memory() // 4
        count = min(max(whole, config.max_sequences * -(-whole // 2)), budget // page_bytes)
    else:
        budget = config.kv_budget
        count = min(budget // page_bytes, config.max_sequences * whole)
    if count < 1:
        raise CapacityError(
            f"the KV budget is {budget} bytes, one page of {page_tokens} tokens takes {page_bytes}"
        )
    return count
