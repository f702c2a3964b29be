"""The models on offer and the requests that run: who may enter now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal, Protocol

from edge_llm.runner.engine.statistics import RequestStatistics
from edge_llm.runner.generation.async_inbox import Bell
from edge_llm.server.encoders import Encoders
from edge_llm.server.errors import ApiError, invalid, overloaded, unavailable
from edge_llm.server.models.adapted import AdaptedModel
from edge_llm.server.models.model import Model
from edge_llm.server.models.offer import Choice, Offer
from edge_llm.server.models.shelf import Shelf


class Abortable(Protocol):
    """A request of ours that a stopping server can end."""

    def abort(self) -> None: ...


State = Literal["loading", "ready", "draining"]


class Service:
    """The models on offer and the requests that run. It begins as "loading"; `ready` and `drain`
    move it on. Used on the event loop's thread."""

    def __init__(self, shelf: Shelf, *, max_choices: int) -> None:
        self.shelf = shelf
        self.state: State = "loading"
        self.created = int(time.time())
        self.encoders = Encoders()
        self._max_choices = max_choices
        self._active: dict[Abortable, tuple[int, Offer]] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._bell: Bell | None = None
        shelf.on_load = self._prepare
        # Told of each answer that the engine has ended.
        self.on_answer: Callable[[RequestStatistics], None] = lambda stats: None

    @property
    def bell(self) -> Bell:
        """Return what wakes the running event loop."""
        if self._bell is None or self._bell.loop is not asyncio.get_running_loop():
            self._bell = Bell()
        return self._bell

    def ready(self) -> None:
        """Say that the models that are there from the beginning are."""
        if self.state == "loading":
            self.state = "ready"

    def drain(self) -> None:
        """Take no more requests; those that run go on."""
        self.state = "draining"

    def abort(self) -> None:
        """End the requests that still run."""
        for request in list(self._active):
            request.abort()

    @property
    def requests(self) -> int:
        """The number of requests that run or wait, from before their texts are encoded."""
        return len(self._active)

    @property
    def choices(self) -> int:
        """The number of answers that they ask for."""
        return sum(choices for choices, _ in self._active.values())

    def check(self) -> None:
        """Raise unless requests are taken.

        Raises:
            ApiError: 503 while loading or draining.
        """
        if self.state == "loading":
            raise unavailable("The model is loading.")
        if self.state == "draining":
            raise _stopping()

    def offered(self) -> list[Choice]:
        """Return the models on offer, each without and with its adapters.

        Raises:
            ApiError: 503, the server stops.
        """
        if self.state == "draining":
            raise _stopping()
        return self.shelf.choices

    async def model(self, name: str | None = None) -> Model:
        """Return a model by one of its names; None means the first. See `loaded`.

        Raises:
            ApiError: 404, ``name`` is not served; or as `loaded`.
        """
        return await self.loaded(self.shelf.find(name))

    async def loaded(self, choice: Choice, keep: float | None = None) -> Model:
        """Return a model, loaded first if need be. It stays loaded until the caller awaits
        something else, for every request that has entered, and for ``keep`` seconds after the last
        (None: as usual) if memory allows.

        Raises:
            ApiError: 503, the server stops, or the model is not loaded in time; 500, it cannot be
                loaded.
        """
        if self.state == "draining":
            raise _stopping()
        model = await self.shelf.model(choice.offer, keep)
        return model if choice.adapter is None else AdaptedModel(model, choice.adapter)

    def _prepare(self, offer: Offer) -> None:
        """Have a model made ready for what a first answer would wait for."""
        assert offer.model is not None
        loop = asyncio.get_running_loop()
        self.shelf.hold(offer)
        preparing = loop.create_task(self.encoders.run("", offer.model.prepare))
        preparing.add_done_callback(lambda done: self.shelf.release(offer))

    def enter(self, request: Abortable, choices: int, model: Model) -> None:
        """Count a request of so many ``choices`` in, until `leave`; ``model`` stays loaded for it.

        Raises:
            ApiError: 429 if too many run or wait, 400 if it asks for more than ever may, 503 if the
                server began to stop meanwhile.
        """
        if self.state == "draining":
            raise _stopping()
        if choices > self._max_choices:
            raise invalid(
                f"Invalid 'n': {choices} choices are asked for, at most {self._max_choices} are "
                "allowed.",
                "n",
                "integer_above_max_value",
            )
        if self.choices + choices > self._max_choices:
            raise overloaded()
        offer = self.shelf.offer_of(model)
        self.shelf.hold(offer)
        self._active[request] = choices, offer
        self._empty.clear()

    def leave(self, request: Abortable) -> None:
        """Count it out; more than once is fine."""
        if (entry := self._active.pop(request, None)) is not None:
            self.shelf.release(entry[1])
        if not self._active:
            self._empty.set()

    async def emptied(self) -> None:
        """Wait until no request runs or waits."""
        await self._empty.wait()


def _stopping() -> ApiError:
    return unavailable("The server is stopping.")
