"""Modules that take seconds to import, imported while something else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def imported(*modules: str) -> Iterator[None]:
    """Import ``modules`` in a thread while the block runs. Who uses them imports them again, and so
    waits for them, and sees what went wrong."""
    with ThreadPoolExecutor(1, "edge-llm-import") as thread:
        for module in modules:
            thread.submit(import_module, module)
        yield
