"""Several models on offer: loaded when asked for, unloaded to make room, for how long they stay."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

import pytest
from fixtures_server import offered

from edge_llm.errors import CapacityError, ProgramError
from edge_llm.server.errors import ApiError
from edge_llm.server.models.duration import keep_seconds
from edge_llm.server.models.offer import Offer
from edge_llm.server.models.pressure import relieve
from edge_llm.server.models.shelf import Shelf
from edge_llm.server.options import ServerOptions
from edge_llm.server.run import Stop, bind, run


class Model:
    """A model that knows its name, and whether it was closed."""

    digest, context, about = "d", 16, None

    def __init__(self, name: str, shop: Shop, memory: int = 0) -> None:
        self.name = name
        self.memory = memory
        self.closed = False
        self._shop = shop

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        assert self._shop.gate.wait(60)
        self._shop.closed.append(self.name)
        self.closed = True


class Shop:
    """Models, and which were loaded and closed; ``gate`` holds that up while it is clear."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.closed: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def offer(self, name: str, size: int = 0, **facts: Any) -> Offer:
        def load() -> Model:
            assert self.gate.wait(60)
            self.loads.append(name)
            return Model(name, self, size)

        return offered(Model(name, self, size), load=load, **facts)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def scene(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(play(), 20))


def states(shelf: Shelf) -> dict[str, str]:
    return {offer.name: offer.state for offer in shelf.offers}


def test_a_model_is_loaded_once_for_all_who_ask(shop: Shop) -> None:
    async def play() -> None:
        shelf = Shelf([shop.offer("a"), shop.offer("b")])
        offer = shelf.find("b").offer
        models = await asyncio.gather(*(shelf.model(offer) for _ in range(5)))
        assert len(set(map(id, models))) == 1
        assert shop.loads == ["b"]
        assert states(shelf) == {"a": "unloaded", "b": "loaded"}
        assert shelf.offer_of(models[0]) is offer

    scene(play)


def test_names(shop: Shop) -> None:
    shelf = Shelf([shop.offer("a", aliases=("file", "gpt-4o")), shop.offer("b")])
    assert [shelf.find(name).name for name in ("a", "file", "gpt-4o", "b", None)] == [*"aaaba"]
    with pytest.raises(ApiError, match=r"'c' does not exist here; served: 'a', 'file'.*'b'") as got:
        shelf.find("c")
    assert got.value.status == 404


def test_the_one_idle_for_longest_makes_room(shop: Shop) -> None:
    async def play() -> None:
        shelf = Shelf([shop.offer(name, size=4) for name in "abc"], budget=10)
        first = await shelf.model(shelf.find("a").offer)
        await shelf.model(shelf.find("b").offer)
        await shelf.model(shelf.find("a").offer)  # used again: b is older
        await shelf.model(shelf.find("c").offer)
        assert states(shelf) == {"a": "loaded", "b": "unloaded", "c": "loaded"}
        assert await shelf.model(shelf.find("a").offer) is first
        assert shop.loads == [*"abc"]

    scene(play)


def test_one_alone_may_take_more_than_the_budget(shop: Shop) -> None:
    async def play() -> None:
        shelf = Shelf([shop.offer("a", size=40), shop.offer("b", size=4)], budget=10)
        await shelf.model(shelf.find("b").offer)
        await shelf.model(shelf.find("a").offer)
        assert states(shelf) == {"a": "loaded", "b": "unloaded"}

    scene(play)


def test_what_runs_and_what_is_pinned_stays(shop: Shop) -> None:
    async def play() -> None:
        pinned = shop.offer("p", size=4, pinned=True)
        shelf = Shelf([pinned, *(shop.offer(name, size=4) for name in "ab")], budget=10)
        await shelf.model(pinned)
        running = shelf.find("a").offer
        model: Any = await shelf.model(running)
        shelf.hold(running)
        wanted = asyncio.create_task(shelf.model(shelf.find("b").offer))
        await asyncio.sleep(0.05)
        assert not wanted.done()
        assert not model.closed
        shelf.release(running)
        await wanted
        assert model.closed
        assert states(shelf) == {"p": "loaded", "a": "unloaded", "b": "loaded"}
        await shelf.unload(pinned)
        assert pinned.state == "loaded"

    scene(play)


def test_a_request_does_not_wait_for_ever(shop: Shop) -> None:
    async def play() -> None:
        shelf = Shelf([shop.offer("a", size=8), shop.offer("b", size=8)], budget=10, patience=0.1)
        running = shelf.find("a").offer
        await shelf.model(running)
        shelf.hold(running)
        with pytest.raises(ApiError, match="waits for room") as got:
            await shelf.model(shelf.find("b").offer)
        assert got.value.status == 503
        assert "retry-after" in got.value.headers
        shelf.release(running)
        await asyncio.sleep(0.05)
        assert states(shelf) == {"a": "loaded", "b": "unloaded"}  # nobody waits for b any longer

        shop.gate.clear()
        with pytest.raises(ApiError, match="is loading"):
            await shelf.model(shelf.find("b").offer)
        shop.gate.set()
        await shelf.model(shelf.find("b").offer)  # the same loading
        assert shop.loads == [*"ab"]

    scene(play)


def test_a_model_that_cannot_be_loaded_is_tried_again(shop: Shop) -> None:
    async def play() -> None:
        failures = [ProgramError("it is damaged")]

        def load() -> Any:
            if failures:
                raise failures.pop()
            return Model("a", shop)

        shelf = Shelf([offered(Model("a", shop), load=load)])
        with pytest.raises(ApiError, match="'a' cannot be loaded: it is damaged") as got:
            await shelf.model(shelf.find("a").offer)
        assert (got.value.status, got.value.code) == (500, "model_not_loaded")
        assert states(shelf) == {"a": "unloaded"}
        await shelf.model(shelf.find("a").offer)
        assert states(shelf) == {"a": "loaded"}

    scene(play)


def test_how_long_it_stays(shop: Shop) -> None:
    async def until_unloaded(offer: Offer) -> None:
        while offer.state != "unloaded":
            await asyncio.sleep(0.005)

    async def play() -> None:
        shelf = Shelf([shop.offer("a", usual=0.05), shop.offer("b")])
        short, long = shelf.offers
        await shelf.model(short)
        await shelf.model(long)
        shelf.hold(short)
        await asyncio.sleep(0.1)
        assert short.state == "loaded"  # a request runs on it
        shelf.release(short)
        assert short.expires is not None
        await until_unloaded(short)
        assert (long.state, long.expires) == ("loaded", None)
        await shelf.model(long, keep=0)
        await until_unloaded(long)
        await shelf.model(long)  # again as usual
        await asyncio.sleep(0.02)
        assert long.state == "loaded"
        shelf.hold(long)
        await shelf.unload(long)
        assert long.state == "loaded"
        shelf.release(long)  # now
        await until_unloaded(long)

    scene(play)


def test_it_is_asked_for_while_it_is_unloaded(shop: Shop) -> None:
    async def play() -> None:
        shelf = Shelf([shop.offer("a")])
        offer = shelf.find("a").offer
        first = await shelf.model(offer)
        shop.gate.clear()
        gone = asyncio.create_task(shelf.unload(offer))
        while offer.state != "unloading":
            await asyncio.sleep(0.001)
        again = asyncio.create_task(shelf.model(offer))
        await asyncio.sleep(0.01)
        shop.gate.set()
        await gone
        second = await again
        assert second is not first
        assert offer.model is second
        assert shop.loads == ["a", "a"]

        gone = asyncio.create_task(shelf.unload(offer))
        await asyncio.sleep(0)
        assert await shelf.model(offer) is second
        shelf.hold(offer)  # before it had begun
        await gone
        assert shop.closed == ["a"]
        await shelf.close()
        assert shop.closed == ["a", "a"]
        with pytest.raises(ApiError, match="stopping"):
            await shelf.model(offer)

    scene(play)


def test_what_has_no_room_beside_pinned_models_is_refused_at_once(shop: Shop) -> None:
    async def play() -> None:
        sizes = {"p": 8, "q": 8, "a": 2}
        offers = [shop.offer(n, size=size, pinned=n == "p") for n, size in sizes.items()]
        shelf = Shelf(offers, budget=10)
        for name in "pa":
            await shelf.model(shelf.find(name).offer)
        with pytest.raises(CapacityError, match="the pinned ones take 8"):
            await shelf.load(shelf.find("q").offer)
        with pytest.raises(ApiError, match="'q' cannot be loaded") as got:
            await shelf.model(shelf.find("q").offer)
        assert got.value.status == 500
        assert states(shelf) == {"p": "loaded", "q": "unloaded", "a": "loaded"}

    scene(play)


def test_nothing_makes_room_for_a_file_that_is_gone(shop: Shop) -> None:
    async def play() -> None:
        def gone() -> int:
            raise ProgramError("there is no such file")

        shelf = Shelf([shop.offer("a", size=8), shop.offer("b", size=8)], budget=10)
        await shelf.model(shelf.find("a").offer)
        shelf.find("b").offer.needs = gone
        with pytest.raises(ApiError, match="there is no such file"):
            await shelf.model(shelf.find("b").offer)
        assert states(shelf) == {"a": "loaded", "b": "unloaded"}

    scene(play)


def test_a_model_whose_time_runs_out_while_the_shelf_closes_is_closed_once(shop: Shop) -> None:
    async def play() -> None:
        shelf = Shelf([shop.offer("a"), shop.offer("b", usual=0.01)])
        for offer in shelf.offers:
            await shelf.model(offer)
        shop.gate.clear()
        closing = asyncio.create_task(shelf.close())
        await asyncio.sleep(0.05)  # the time of b has run out; both are being closed
        shop.gate.set()
        await closing
        await asyncio.sleep(0.02)
        assert sorted(shop.closed) == ["a", "b"]  # by two threads, in any order

    scene(play)


def test_a_stop_while_the_first_models_load_is_heeded(shop: Shop) -> None:
    async def play() -> None:
        options, stop = ServerOptions(port=0), Stop()
        announced: list[Any] = []
        shop.gate.clear()
        with bind(options) as listener:
            offers = [shop.offer("a"), shop.offer("p", pinned=True)]
            running = asyncio.create_task(run(offers, options, listener, announced.append, stop))
            while offers[0].state != "loading":
                await asyncio.sleep(0.005)
            stop()
            await asyncio.sleep(0.05)
            shop.gate.set()
            await running
        assert not announced
        assert shop.loads == shop.closed == ["a"]

    scene(play)


def test_memory_pressure_unloads_what_is_idle(shop: Shop) -> None:
    async def play() -> None:
        shelf = Shelf([shop.offer(name) for name in "abc"])
        for offer in shelf.offers:
            await shelf.model(offer)
        shelf.hold(shelf.find("a").offer)
        looks = iter([True, True, True])
        watching = asyncio.create_task(
            relieve(shelf, short=lambda: next(looks, False), seconds=0.005)
        )
        await asyncio.sleep(0.1)
        watching.cancel()
        assert states(shelf) == {"a": "loaded", "b": "unloaded", "c": "unloaded"}

    scene(play)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("300", 300.0),
        (300, 300.0),
        (0, 0.0),
        ("0", 0.0),
        ("-1", inf),
        (-1, inf),
        ("-1m", inf),
        ("99999h", inf),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    assert keep_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5 m", "5x", "1h30", "--1", "nan", "inf", "5m!"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|finite"):
        keep_seconds(text)
