"""The models on offer: loaded when they are asked for, unloaded to make room for others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any

from edge_llm.api.about import ModelFacts
from edge_llm.errors import CapacityError, EdgeLLMError
from edge_llm.server.errors import ApiError, not_loaded, unavailable, unknown_model
from edge_llm.server.models.adapted import AdaptedModel
from edge_llm.server.models.model import Model
from edge_llm.server.models.offer import Choice, Offer, choices_of, with_adapter

# How long a request waits for its model to be loaded before it is told to come again.
PATIENCE_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Shelf:
    """Models under one budget of memory. The one that was idle for longest makes room first; one
    alone may take more than the budget. Used on the event loop's thread."""

    def __init__(
        self,
        offers: Sequence[Offer],
        *,
        budget: int | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Offer these, the first to requests that name none. ``budget`` is in bytes (None: without
        bound), ``patience`` the seconds that a request waits for its model."""
        self.offers = tuple(offers)
        self._names = {
            with_adapter(name, choice.adapter): choice
            for offer in reversed(self.offers)
            for choice in choices_of(offer)
            for name in offer.names
        }
        self._budget = budget
        self._patience = patience
        self._turn = asyncio.Lock()  # one change at a time
        self._freed = asyncio.Event()  # a request has ended
        self._closed = False
        # Told of each model that has been loaded.
        self.on_load: Callable[[Offer], None] = lambda offer: None

    @property
    def loaded(self) -> list[Offer]:
        """The models that are in memory now."""
        return [offer for offer in self.offers if offer.model is not None]

    @property
    def choices(self) -> list[Choice]:
        """The models on offer, each without and with its adapters."""
        return [choice for offer in self.offers for choice in choices_of(offer)]

    def find(self, name: str | None) -> Choice:
        """Return a model by one of its names; None means the first.

        Raises:
            ApiError: 404, there is none of that name.
        """
        if name is None:
            return Choice(self.offers[0])
        if (choice := self._names.get(name)) is None:
            raise unknown_model(
                name,
                [
                    with_adapter(name, choice.adapter)
                    for choice in self.choices
                    for name in choice.offer.names
                ],
            )
        return choice

    def offer_of(self, model: Model) -> Offer:
        """Return what a loaded model, with an adapter or without, is on offer as."""
        base = model.base if isinstance(model, AdaptedModel) else model
        return next(offer for offer in self.offers if offer.model is base)

    async def model(self, offer: Offer, keep: float | None = None) -> Model:
        """Return the loaded model, loading it first if need be. It stays loaded until the caller
        awaits something else, while it is held (`hold`), and for ``keep`` seconds after that
        (None: as usual for it) if memory allows.

        Raises:
            ApiError: 503, it was not loaded within the patience of a request, or the server is
                stopping; 500, it cannot be loaded.
        """
        offer.keep = offer.usual if keep is None else keep
        try:
            async with asyncio.timeout(self._patience):
                return await self.load(offer)
        except TimeoutError:
            raise unavailable("The model is loading, or waits for room in memory.") from None
        except EdgeLLMError as exc:
            raise not_loaded(offer.name, exc) from exc

    async def load(self, offer: Offer) -> Model:
        """Return the loaded model as `model` does, however long that takes.

        Raises:
            ApiError: 503, the server is stopping.
            EdgeLLMError: it cannot be loaded.
        """
        self.hold(offer)
        try:
            while offer.state != "loaded":
                if self._closed:
                    raise unavailable("The server is stopping.")
                change = offer.change or self._begin(offer, self._load(offer))
                await asyncio.shield(change)
        finally:
            self.release(offer)
        assert offer.model is not None
        return offer.model

    def hold(self, offer: Offer) -> None:
        """Keep a model from being unloaded, until `release`."""
        offer.requests += 1
        if offer.expires is not None:
            offer.expires.cancel()
            offer.expires = None

    def release(self, offer: Offer) -> None:
        """Let go of a model that was held; once nobody holds it, its time begins to run out."""
        offer.requests -= 1
        if offer.requests:
            return
        loop = asyncio.get_running_loop()
        offer.used = loop.time()
        self._freed.set()
        if offer.idle and offer.keep < inf:
            offer.expires = loop.call_later(offer.keep, self._expire, offer)

    async def unload(self, offer: Offer) -> None:
        """Unload a model if it is idle, else as soon as its requests have ended."""
        offer.keep = 0.0
        if offer.idle:
            await asyncio.shield(self._begin(offer, self._unload(offer)))

    async def unload_idlest(self) -> bool:
        """Unload the model that was idle for longest; return False where none is idle."""
        idle = [offer for offer in self.offers if offer.idle]
        if idle:
            await self.unload(min(idle, key=lambda offer: offer.used))
        return bool(idle)

    async def facts(self, choice: Choice) -> ModelFacts:
        """Return what is known of a model, loaded or not.

        Raises:
            ApiError: 500, its file cannot be read.
        """
        offer = choice.offer
        if (model := offer.model) is not None:
            return ModelFacts(
                with_adapter(model.name, choice.adapter), model.digest, model.context, model.about
            )
        if offer.facts is None:
            try:
                offer.facts = await asyncio.to_thread(offer.describe)
            except EdgeLLMError as exc:
                raise not_loaded(offer.name, exc) from exc
        return replace(offer.facts, name=with_adapter(offer.facts.name, choice.adapter))

    async def known(self, choices: Iterable[Choice]) -> list[tuple[Choice, ModelFacts]]:
        """Return some models with what is known of them, but for those whose files cannot be
        read."""
        found = []
        for choice in choices:
            with suppress(ApiError):
                found.append((choice, await self.facts(choice)))
        return found

    async def close(self) -> None:
        """Unload everything, held or not."""
        self._closed = True
        self._freed.set()
        async with self._turn:  # after the change that goes on; no other does anything then
            await asyncio.gather(*(self._close(offer) for offer in self.loaded))

    def _begin(self, offer: Offer, change: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                async with self._turn:
                    await change
            finally:
                change.close()  # where it was never begun
                if offer.change is task:
                    offer.change = None

        offer.change = task = asyncio.create_task(run())
        # Whoever waited may be gone by then: its error is nobody's.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _load(self, offer: Offer) -> None:
        if offer.state == "loaded" or self._closed:
            return
        if self.loaded:
            # Before others are unloaded for it: its file may be gone, or another one.
            offer.bytes = await asyncio.to_thread(offer.needs)
            if not await self._room(offer):
                return
        offer.state = "loading"
        started = time.monotonic()
        try:
            offer.model = await asyncio.to_thread(offer.load)
            offer.bytes = offer.model.memory
        finally:
            offer.state = "unloaded" if offer.model is None else "loaded"
        offer.facts = None  # the file may have been another when they were read
        _log.info("loaded %s in %.1f s", offer.name, time.monotonic() - started)
        self.on_load(offer)

    async def _room(self, offer: Offer) -> bool:
        """Make room for a model; return False where nobody waits for it any longer.

        Raises:
            CapacityError: there is none beside the models that are pinned.
        """
        pinned = sum(other.bytes for other in self.loaded if other.pinned)
        if self._budget is not None and pinned and pinned + offer.bytes > self._budget:
            raise CapacityError(
                f"{offer.name} takes {offer.bytes} bytes, of {self._budget} for all models the "
                f"pinned ones take {pinned}",
                hint="give more --memory, or pin less",
            )
        while (
            self._budget is not None
            and self.loaded
            and sum(other.bytes for other in self.loaded) + offer.bytes > self._budget
        ):
            if self._closed or not offer.requests:
                return False
            idle = [other for other in self.loaded if other.idle]
            if idle:
                await self._close(min(idle, key=lambda other: other.used))
            else:
                self._freed.clear()
                await self._freed.wait()
        return not self._closed

    async def _unload(self, offer: Offer) -> None:
        if offer.idle and not self._closed:
            await self._close(offer)

    async def _close(self, offer: Offer) -> None:
        assert offer.model is not None
        offer.state = "unloading"
        try:
            await asyncio.to_thread(offer.model.close)
        finally:
            offer.model, offer.state = None, "unloaded"
        _log.info("unloaded %s", offer.name)

    def _expire(self, offer: Offer) -> None:
        offer.expires = None
        if offer.idle:
            self._begin(offer, self._unload(offer))
