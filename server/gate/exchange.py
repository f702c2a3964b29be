"""What is known of a request and its reply while it is served, for the log and the figures."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from edge_llm.server.errors import ApiError

CLIENT_GONE = 499  # the status of a reply that nobody waited for
_KEY = "edge_llm.exchange"


@dataclass(slots=True)
class Exchange:
    """One request and its reply.

    Attributes:
        id: goes into the reply's ``x-request-id``.
        started: when it came, of ``time.perf_counter``.
        status: the reply's, 0 before it begins.
        complete: the whole reply was handed over.
        gone: the client left before that.
        failure: what went wrong after the reply had begun.
    """

    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(12)}")
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    complete: bool = False
    gone: bool = False
    failure: ApiError | None = None

    @property
    def outcome(self) -> int:
        """The status that tells what came of it: 499 for a client that left, and that of an error
        which a stream ended with."""
        if self.gone and not self.complete:
            return CLIENT_GONE
        return self.status if self.failure is None else self.failure.status


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange:
    """Return the exchange that an ASGI scope belongs to."""
    exchange = scope.setdefault(_KEY, Exchange())
    assert isinstance(exchange, Exchange)
    return exchange


def client_of(scope: Mapping[str, Any]) -> str:
    """Return the client that a request is from, for fair shares: the address of its peer. All have
    the one key, if any."""
    client = scope.get("client")
    return "" if client is None else str(client[0])
