"""Where the weights lie while the native core reads them: the file's own pages, asked for ahead of
the first step, or a copy in huge pages."""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_llm.runner.engine.memory import available_memory, machine_memory

Weights = Mapping[str, NDArray[np.uint8]]

_ALIGNMENT = 64
_HUGE = 2 * 1024 * 1024
_MARGIN = 256 * 1024 * 1024  # stays free when weights are copied
_POPULATE_READ = 22  # Linux 5.14: maps pages without a fault for each
_WORTH_IT = 8 * 1024 * 1024
_CHUNK = 16 * 1024 * 1024  # populated by one call


def in_huge_pages(weights: Weights) -> Weights:
    """Return a copy of ``weights`` in anonymous memory for which the kernel is asked for huge
    pages; the same mapping where the memory that is free would not hold it, or huge pages do not
    exist."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    sizes = [-(-data.size // _ALIGNMENT) * _ALIGNMENT for data in weights.values()]
    total = sum(sizes)
    free = available_memory()
    if advice is None or not total or (free is not None and free < total + _MARGIN):
        return weights
    room = mmap.mmap(-1, total + _HUGE)
    room.madvise(advice)
    memory = np.frombuffer(room, np.uint8)
    begin = -memory.ctypes.data % _HUGE
    copies = {}
    for (name, data), size in zip(weights.items(), sizes, strict=True):
        copies[name] = memory[begin : begin + data.size]
        copies[name][:] = data.reshape(-1).view(np.uint8)
        begin += size
    return copies


def prefault(weights: Weights) -> None:
    """Map the weights' pages in the background, so that the first step need not fault them in one
    by one. Does nothing where the system cannot, or where they would fill half of the memory."""
    total = sum(data.size for data in weights.values())
    if sys.platform != "linux" or not _WORTH_IT <= total <= machine_memory() // 2:
        return
    threading.Thread(
        target=_populate, args=(list(weights.values()),), name="edge-llm-prefault", daemon=True
    ).start()


def _populate(arrays: Sequence[NDArray[np.uint8]]) -> None:
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    page = mmap.PAGESIZE
    for data in arrays:  # they keep the mapping alive
        first = data.ctypes.data // page * page
        end = data.ctypes.data + data.size
        for begin in range(first, end, _CHUNK):
            if madvise(begin, min(_CHUNK, end - begin), _POPULATE_READ) != 0:
                return  # an older kernel
