"""Idle models make room before the machine begins to swap."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edge_llm.runner.engine.memory import available_memory, machine_memory
from edge_llm.server.models.shelf import Shelf

SECONDS = 5.0  # between two looks
_SHARE = 0.05  # of memory: less than that is not enough

_log = logging.getLogger(__name__)


def short_of_memory() -> bool:
    """Return whether little memory is left that could be taken without swapping; what the system
    only keeps of files, as it does of weights, counts as left."""
    available = available_memory()
    return available is not None and available < _SHARE * machine_memory()


async def relieve(
    shelf: Shelf, *, short: Callable[[], bool] = short_of_memory, seconds: float = SECONDS
) -> None:
    """Unload a model that is idle whenever memory is short, the one that was idle for longest
    first. Runs until it is cancelled."""
    while True:
        await asyncio.sleep(seconds)
        if short() and await shelf.unload_idlest():
            _log.warning("little memory is left: an idle model was unloaded")
