"""Failures in a step and of the engine's thread: nobody hangs, nobody else suffers."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import signal
import threading
import warnings
from types import SimpleNamespace
from typing import cast

import pytest
from prompts import prompt
from waiting import MOST, wait_until

from edge_llm.errors import GenerationError, NativeError, RequestError
from edge_llm.runner.generation.answer import Decoder
from edge_llm.runner.generation.async_inbox import AsyncInbox
from edge_llm.runner.generation.inbox import BlockingInbox, Item
from edge_llm.runner.generation.loop import Generation, Job, Stream
from edge_llm.runner.sampling import SamplingParams

# ---- failures ----


def test_non_finite_logits_end_one_sequence(bench) -> None:
    plain = bench().solo([1, 2, 3], 8)
    failing = bench()
    failing.executor.non_finite.add((1, 2, 3, *plain[:2]))
    listener, _ = failing.submit([1, 2, 3], 8)
    neighbour, _ = failing.submit([4, 5, 6], 8)
    failing.run()
    assert listener.ids == plain[:2]
    assert isinstance(listener.error, GenerationError)
    assert neighbour.ids == failing.solo([4, 5, 6], 8)


@pytest.mark.parametrize("failure", [NativeError("broken"), ValueError("broken")])
def test_a_failing_executor_ends_all_requests_and_not_the_engine(
    bench, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failing = bench(max_sequences=2)
    listeners = [failing.submit(prompt(i, 5))[0] for i in range(3)]
    failing.engine.step()

    def fail() -> None:
        failing.executor.before_step = lambda: None
        raise failure

    failing.executor.before_step = fail
    with caplog.at_level(logging.CRITICAL):
        failing.engine.step()
    kind = NativeError if isinstance(failure, NativeError) else GenerationError
    errors = [listener.error for listener in listeners]
    assert all(type(error) is kind and "broken" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 3
    again, _ = failing.submit(prompt(1, 5))
    failing.run()
    assert again.ids == failing.solo(prompt(1, 5), 8)


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_failing_callback_cancels_its_request_alone(
    bench, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    failing = bench()
    neighbour, _ = failing.submit([4, 5, 6], 8)
    calls = []

    def callback(event: object) -> None:
        calls.append(event)
        raise kind("a bug in the caller")

    with caplog.at_level(logging.CRITICAL):
        failing.engine.submit([1, 2, 3], SamplingParams(max_tokens=50), callback)
        failing.run()
    assert len(calls) == 2  # one token, then the end
    assert neighbour.ids == failing.solo([4, 5, 6], 8)


def test_nobody_waits_for_what_a_cancelled_request_tells(
    bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Its reader's event loop may have been closed by now."""
    engine = bench()
    calls = []

    def callback(event: object) -> None:
        calls.append(event)
        request.cancel()
        raise RuntimeError("Event loop is closed")

    request = engine.engine.submit([1, 2, 3], SamplingParams(max_tokens=50), callback)
    engine.run()
    assert len(calls) == 2
    assert caplog.records == []


# ---- the thread ----


def test_what_was_never_taken_in_ends_quietly(bench, caplog: pytest.LogCaptureFixture) -> None:
    stopping = bench()
    running, _ = stopping.submit([1, 2, 3], 8)
    late = []

    def stop() -> None:
        late.append(stopping.submit([4, 5, 6], 8)[0])
        stopping.engine.stop()

    stopping.executor.before_step = stop
    stopping.engine.start()
    wait_until(lambda: bool(late))
    stopping.engine.stop()
    assert isinstance(running.error, GenerationError)
    assert isinstance(late[0].error, GenerationError)
    assert caplog.records == []


@pytest.mark.parametrize("place", ["step", "scheduler"])
def test_a_dying_thread_ends_all_requests_and_refuses_more(
    bench, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    dying = bench(max_sequences=1)
    listeners = [dying.submit([1, 2, 3])[0] for _ in range(3)]
    ended = threading.Event()

    def fail(*arguments: object) -> None:
        raise SystemExit("gone")

    if place == "step":
        dying.executor.before_step = fail
    else:
        dying.engine._scheduler.add = fail
    dying.engine.submit([1, 2, 3], SamplingParams(), lambda event: ended.set())
    with caplog.at_level(logging.CRITICAL + 1):
        dying.engine.start()
        ended.wait()
        dying.engine.stop()
    assert all(isinstance(listener.error, GenerationError) for listener in listeners)
    assert dying.executor.closed
    with pytest.raises(GenerationError, match="stopped"):
        dying.submit([1, 2, 3])


def test_a_request_whose_event_loop_was_closed_is_cancelled(bench) -> None:
    async def inbox() -> AsyncInbox:
        return AsyncInbox()

    loop = asyncio.new_event_loop()
    unread = loop.run_until_complete(inbox())
    loop.close()
    orphaned = bench()
    job = Job([1, 2, 3], SamplingParams(max_tokens=100), cast(Decoder, None))
    Generation(orphaned.engine.submit, [job], unread)
    orphaned.run()
    assert len(orphaned.executor.batches) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_refused_and_does_not_hang(bench) -> None:
    forked = bench()
    forked.engine.start()
    _, request = forked.submit([1, 2, 3])
    with forked.engine._queue._changed, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that forking with threads is unwise
        child = os.fork()
        if child == 0:
            refusals = 0
            for call in (lambda: forked.submit([1, 2, 3]), forked.engine.stats):
                try:
                    call()
                except GenerationError as error:
                    refusals += "forked" in str(error)
            request.cancel()
            forked.engine.stop()
            os._exit(0 if refusals == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    forked.engine.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_stream_that_a_forked_child_inherits_is_refused_and_does_not_hang() -> None:
    class Silent:
        """A request whose engine runs elsewhere."""

        def cancel(self) -> None: ...

    job = Job([1], SamplingParams(), decoder=cast(Decoder, None))
    stream = Stream(lambda *_, **__: Silent(), [job])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(20)  # where it hangs
        refusals = 0
        for call in (stream.completions, lambda: next(stream)):
            try:
                call()
            except GenerationError as error:
                refusals += "forked" in str(error)
        os._exit(0 if refusals == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    stream.close()


def test_two_threads_that_read_one_stream_do_not_hang() -> None:
    class Watched(BlockingInbox):
        async def get(self) -> Item:
            waiting.set()
            return await super().get()

    job = Job([1], SamplingParams(), decoder=cast(Decoder, None))
    stream = Stream(lambda *_, **__: SimpleNamespace(cancel=lambda: None), [job])
    waiting, inbox, results = threading.Event(), Watched(), []
    stream._generation._inbox = inbox

    def read() -> None:
        try:
            next(stream)
        except GenerationError as error:
            results.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    waiting.wait()
    # Where this waits instead of refusing, the error ends one of the two, and the other hangs.
    timer = threading.Timer(10, lambda: [inbox.put(GenerationError("late")) for _ in range(2)])
    timer.start()
    with pytest.raises(RequestError, match="another thread"):
        next(stream)
    timer.cancel()
    inbox.put(GenerationError("the end"))
    reader.join()
    assert results == ["the end"]


def test_the_thread_serves_many_callers(bench) -> None:
    served = bench()
    served.engine.start()
    answers: dict[int, list[int]] = {}

    def call(number: int) -> None:
        done = threading.Event()
        ids: list[int] = []

        def on_event(event: object) -> None:
            if hasattr(event, "id"):
                ids.append(event.id)
            else:
                done.set()

        served.engine.submit(
            prompt(number, 10), SamplingParams(temperature=0.0, max_tokens=9), on_event
        )
        done.wait()
        answers[number] = ids

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served.engine.stop()
    assert served.executor.closed
    for number, ids in answers.items():
        assert ids == served.solo(prompt(number, 10), 9)


def test_stop_ends_requests_with_an_error_and_refuses_more(bench) -> None:
    stopped = bench(context=100_000, pages=30_000)
    running = threading.Event()
    stopped.executor.before_step = running.set
    listener, _ = stopped.submit([1, 2, 3], None)
    stopped.engine.start()
    running.wait()
    stopped.engine.stop()
    stopped.engine.stop()
    assert isinstance(listener.error, GenerationError)
    with pytest.raises(GenerationError, match="stopped"):
        stopped.submit([1, 2, 3])


def test_stop_from_a_callback_does_not_hang(bench) -> None:
    stopped = bench()
    ended = threading.Event()

    def on_event(event: object) -> None:
        stopped.engine.stop()
        if not hasattr(event, "id"):
            ended.set()

    stopped.engine.submit([1, 2, 3], SamplingParams(), on_event)
    stopped.engine.start()
    ended.wait()
    stopped.engine.stop()
    assert stopped.executor.closed


def test_stop_without_a_thread_ends_requests_too(bench) -> None:
    stopped = bench()
    listener, _ = stopped.submit([1, 2, 3])
    stopped.engine.stop()
    assert isinstance(listener.error, GenerationError)
    assert stopped.executor.closed


def test_a_reader_whose_stream_another_thread_closes_does_not_hang(bench) -> None:
    closed, pieces = bench(), queue.SimpleQueue()
    decoder = SimpleNamespace(push=lambda token: "", finish=lambda: "")
    job = Job([1, 2, 3], SamplingParams(max_tokens=100), cast(Decoder, decoder))
    stream = Stream(closed.engine.submit, [job])

    def read() -> None:
        for piece in stream:
            pieces.put(piece.finish_reason)
        pieces.put("the end")

    threading.Thread(target=read, daemon=True).start()
    wait_until(lambda: stream._generation._inbox._hungry)
    stream.close()
    closed.run()
    assert [pieces.get(timeout=MOST) for _ in range(2)] == ["cancelled", "the end"]
