"""The cores for PyTorch: chunks of work in threads of our own, one core each.

PyTorch's own threads divide each operation into equal parts and spin until the last is done: as
soon as another process wants a core, all wait for the one that lost it, operation after operation.
Here whoever is free takes the next chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from edge_llm import native

# Does the work on each part of a range, and returns when all are done.
Each = Callable[[Callable[[slice], None], Iterable[slice]], None]


def in_turn(work: Callable[[slice], None], parts: Iterable[slice]) -> None:
    """Do ``work`` on each part in the calling thread."""
    for part in parts:
        work(part)


@contextmanager
def on_all_cores() -> Iterator[Each]:
    """Give what does work on several parts at once. Meanwhile operations of PyTorch run in the
    thread that calls them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Each thread has a number of its own, and new ones the machine's.
        with ThreadPoolExecutor(
            native.default_threads(), "edge-llm-verify", torch.set_num_threads, (1,)
        ) as workers:

            def each(work: Callable[[slice], None], parts: Iterable[slice]) -> None:
                for _ in workers.map(work, parts):
                    pass

            yield each
    finally:
        torch.set_num_threads(before)
