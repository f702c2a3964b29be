"""Waiting for what another thread does, and for a server, as long as a busy machine takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import httpx

MOST = 60  # seconds

get = partial(httpx.get, timeout=MOST)
post = partial(httpx.post, timeout=MOST)
client = partial(httpx.Client, timeout=MOST)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds. It fails only where that never comes: a machine with other
    work takes its time."""
    deadline = time.monotonic() + MOST
    while not condition():
        assert time.monotonic() < deadline, "waited for nothing"
        time.sleep(0.002)
