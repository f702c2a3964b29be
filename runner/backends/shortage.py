"""Weights that memory does not hold: what a token then waits for."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from edge_llm.program.cost import expert_bytes, stored_bytes, weight_bytes
from edge_llm.program.file import Program
from edge_llm.program.plan import Plan
from edge_llm.runner.engine.memory import available_memory

_PART = 2**20
_MOST_PARTS = 64
_MOST_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Shortage:
    """``stored`` bytes of weights, of which ``available`` fit in memory; of those that a token
    reads, ``missing`` are expected to come from the file, at ``rate`` bytes a second (0: not
    known)."""

    stored: int
    available: int
    missing: int
    rate: float

    def __str__(self) -> str:
        text = (
            f"the weights take {self.stored / 1e9:.1f} GB and {self.available / 1e9:.1f} GB of "
            "memory are free: those that do not fit are read from the file again and again, some "
            f"{self.missing / 1e6:,.0f} MB a token"
        )
        if self.rate <= 0:
            return text
        seconds = self.missing / self.rate
        return (
            f"{text}, at {self.rate / 1e9:.2f} GB/s (measured just now): {seconds:.2g} seconds "
            "more for each token"
        )


def shortage(program: Program) -> Shortage | None:
    """Return what memory lacks for the weights of ``program``; None where they fit, or where the
    system does not say how much is free. Takes up to half a second where they do not."""
    available = available_memory()
    if available is None or program.file_bytes <= available:
        return None
    plan = program.plan
    stored = stored_bytes(plan)
    if stored <= available:
        return None
    return Shortage(stored, available, missing_bytes(plan, available), file_rate(program.path))


def missing_bytes(plan: Plan, available: int) -> int:
    """Return the bytes that a token reads from the file where ``available`` bytes of its weights
    are in memory: if that is room for what every token reads, part of the experts alone, as if all
    were chosen equally often; else everything, since pages go before they are wanted again."""
    read, (stacks, chosen) = weight_bytes(plan), expert_bytes(plan)
    kept = available - (read - chosen)
    if kept < 0 or not stacks:
        return read
    return int(chosen * max(0.0, 1 - kept / stacks))


def file_rate(path: Path) -> float:
    """Return the bytes a second at which a file is read from where it is stored, not from memory;
    0 where the system cannot say so."""
    if not hasattr(os, "posix_fadvise"):
        return 0.0
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return 0.0
    try:
        parts = max(1, min(_MOST_PARTS, os.fstat(descriptor).st_size // _PART))
        begin = os.fstat(descriptor).st_size // 2 // _PART * _PART
        os.posix_fadvise(descriptor, begin, parts * _PART, os.POSIX_FADV_DONTNEED)
        start, got = time.perf_counter(), 0
        for part in range(parts):
            got += len(os.pread(descriptor, _PART, begin + part * _PART))
            if time.perf_counter() - start > _MOST_SECONDS:
                break
        return got / max(time.perf_counter() - start, 1e-9)
    except OSError:
        return 0.0
    finally:
        os.close(descriptor)
