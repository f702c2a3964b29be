"""The way to the engine's thread: new requests, cancellations, the wish to stop."""

from __future__ import annotations

import os
import threading

from edge_llm.errors import GenerationError
from edge_llm.runner.engine.sequence import Sequence


class RequestQueue:
    """Requests on their way to the engine's thread. Every method is safe from any thread; a forked
    child has no such thread, so that there nothing is taken and nothing waits for the lock."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._arrived: list[Sequence] = []
        self._arrivals = 0
        self._cancelled = False
        self.closed = False
        self.why = ""  # it is closed

    def __len__(self) -> int:
        return len(self._arrived)

    @property
    def forked(self) -> bool:
        """True in a child of the process that the engine runs in."""
        return os.getpid() != self._process

    def check_process(self) -> None:
        """Raise a GenerationError in a forked child."""
        if self.forked:
            raise GenerationError(
                f"this engine runs in process {self._process} and this is process {os.getpid()}, "
                "forked from it",
                hint="load the program after the fork, or start processes by spawning",
            )

    def put(self, sequence: Sequence) -> None:
        """Number ``sequence`` and leave it for the engine.

        Raises:
            GenerationError: the engine was stopped, or belongs to the process that was forked.
        """
        self.check_process()
        with self._changed:
            if self.closed:
                raise GenerationError(self.why)
            sequence.arrival = self._arrivals
            self._arrivals += 1
            self._arrived.append(sequence)
            self._changed.notify_all()

    def notice(self) -> None:
        """Let the engine look for a sequence that was cancelled."""
        if self.forked:
            return
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def close(self, why: str) -> None:
        """Take no more requests; those that come are told ``why``, by the first call."""
        with self._changed:
            self.why = self.why or why
            self.closed = True
            self._changed.notify_all()

    def take(self) -> tuple[list[Sequence], bool]:
        """Return what has come since the last call, and whether anything was cancelled."""
        with self._changed:
            arrived, self._arrived = self._arrived, []
            cancelled, self._cancelled = self._cancelled, False
        return arrived, cancelled

    @property
    def filled(self) -> bool:
        """`wait` would not wait."""
        return bool(self._arrived) or self._cancelled or self.closed

    def wait(self) -> None:
        """Wait until there is something to take, or the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.filled)
