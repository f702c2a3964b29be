"""A model on offer: its names, how it is loaded, and whether it is now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from edge_llm.api.about import ModelFacts
from edge_llm.server.models.model import Model

State = Literal["unloaded", "loading", "loaded", "unloading"]


@dataclass(slots=True, eq=False, kw_only=True)
class Offer:
    """A program that can be served. Everything from ``state`` on belongs to the `Shelf`.

    Attributes:
        name: the name that it is listed by; ``aliases`` are others that it answers to.
        load: loads it. Blocks; raises EdgeLLMError.
        describe: looks into its file without loading it. Blocks; raises EdgeLLMError.
        adapters: those that are loaded beside it; each is a model of its own to requests, named
            behind a colon.
        needs: tells what it takes in memory once it is loaded: weights, and the most for keys and
            values. Blocks; raises EdgeLLMError.
        pinned: it is never unloaded for others, nor for having been idle.
        usual: the seconds for which it stays after a request that does not say for how long;
            infinity: as long as memory allows.
        state: whether it is loaded.
        model: the loaded model, in the states "loaded" and "unloading".
        bytes: what it takes now, or would take when that was last asked.
        requests: those that run on it or wait for it.
        keep: as ``usual``, of the last request.
        used: when the last one ended, in seconds of the event loop's clock.
        expires: the same, of when it is unloaded if nothing comes; None: nothing is set.
        change: the loading or unloading that is going on.
        facts: what `describe` told.
    """

    name: str
    load: Callable[[], Model]
    describe: Callable[[], ModelFacts]
    needs: Callable[[], int]
    aliases: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    pinned: bool = False
    usual: float = inf
    state: State = "unloaded"
    model: Model | None = None
    bytes: int = 0
    requests: int = 0
    keep: float = inf
    used: float = 0.0
    expires: asyncio.TimerHandle | None = None
    change: asyncio.Task[None] | None = None
    facts: ModelFacts | None = field(default=None, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it answers to, its own first."""
        return tuple(dict.fromkeys((self.name, *self.aliases)))

    @property
    def idle(self) -> bool:
        """It is loaded, and may be unloaded now."""
        return self.state == "loaded" and not self.requests and not self.pinned


# The tag that clients of Ollama's API add to the name of a model that has none.
LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Choice:
    """A model as requests name it: one on offer, with one of its adapters or (None) without."""

    offer: Offer
    adapter: str | None = None

    @property
    def name(self) -> str:
        """The name that it is listed by."""
        return with_adapter(self.offer.name, self.adapter)


def with_adapter(name: str, adapter: str | None) -> str:
    """Return the name of a model with an adapter."""
    return name if adapter is None else f"{name}:{adapter}"


def choices_of(offer: Offer) -> tuple[Choice, ...]:
    """Return a model without and with each of its adapters."""
    return tuple(Choice(offer, adapter) for adapter in (None, *offer.adapters))
