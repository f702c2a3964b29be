"""One client's many requests do not keep another's few waiting."""

from __future__ import annotations

import pytest
from prompts import prompt

from edge_llm.runner.engine.shares import Turns, portions


def test_portions_are_equal_where_all_want_more() -> None:
    assert portions({"a": 100, "b": 100}, 32) == {"a": 16, "b": 16}
    assert portions({"a": 100, "b": 5, "c": 100}, 32) == {"a": 14, "b": 5, "c": 13}
    assert portions({"a": 3, "b": 5}, 32) == {"a": 3, "b": 5}
    assert portions({"a": 9, "b": 9, "c": 9}, 2) == {"a": 1, "b": 1, "c": 0}
    assert portions({"a": 9}, 0) == {"a": 0}
    assert portions({}, 9) == {}


def test_turns_go_round() -> None:
    turns = Turns()
    busy = [turns.give("busy") for _ in range(4)]
    assert busy == [0, 1, 2, 3]
    turns.begin(2)
    # Who comes now is not behind what the other has asked for, nor gains from having been away.
    assert turns.give("late") == 2
    assert turns.give("late") == 3
    assert turns.give("busy") == 4


def test_clients_who_never_come_again_are_forgotten() -> None:
    turns = Turns()
    backlog = [turns.give("busy") for _ in range(9)]
    for number in range(5000):
        turns.begin(turns.give(f"visitor {number}"))
    assert len(turns._last) < 2000
    assert turns.give("busy") == backlog[-1] + 1


def running(bench) -> set[str]:
    return {sequence.client for sequence in bench.engine._scheduler.running}


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_single_request_begins_before_the_backlog_of_another(bench, slots: int) -> None:
    shared = bench(max_sequences=slots)
    many = [shared.submit(prompt(i, 10), 6, client="many")[0] for i in range(20)]
    for _ in range(3):
        shared.engine.step()
    one, _ = shared.submit(prompt(50, 10), 6, client="one")
    shared.run()
    ended = sorted([*many, one], key=lambda listener: listener.finish.stats.queue_seconds)
    # With one place it begins when that is free; with more at once, in the place of one of many.
    assert ended.index(one) <= slots
    for number, listener in enumerate(many):
        assert listener.ids == shared.solo(prompt(number, 10), 6)
    assert one.ids == shared.solo(prompt(50, 10), 6)


def test_a_client_without_any_takes_a_place_at_once(bench) -> None:
    shared = bench(max_sequences=4, pages=256)
    many = [shared.submit(prompt(i, 8), 60, client="many")[0] for i in range(9)]
    for _ in range(8):
        shared.engine.step()
    assert running(shared) == {"many"}
    one, _ = shared.submit(prompt(50, 8), 5, client="one")
    two, _ = shared.submit(prompt(51, 8), 5, client="two")
    shared.engine.step()
    assert running(shared) == {"many", "one", "two"}
    assert shared.engine.stats().preemptions == 2
    while not (one.ended and two.ended):
        shared.engine.step()
    assert not any(listener.ended for listener in many)
    shared.run()
    for number, listener in enumerate(many):
        assert listener.ids == shared.solo(prompt(number, 8), 60)


def test_a_client_without_any_takes_blocks_too(bench) -> None:
    shared = bench(pages=24, context=96)
    many = [shared.submit(prompt(i, 20), 20, client="many")[0] for i in range(4)]
    for _ in range(12):
        shared.engine.step()
    one, _ = shared.submit(prompt(50, 40), 8, client="one")
    for _ in range(20):
        shared.engine.step()
    assert one.ids
    shared.run()
    assert one.ids == shared.solo(prompt(50, 40), 8)
    for number, listener in enumerate(many):
        assert listener.ids == shared.solo(prompt(number, 20), 20)


def test_prompts_of_two_clients_share_a_step(bench) -> None:
    shared = bench(context=256, pages=256)
    for number in range(3):
        shared.submit(prompt(number, 200), 1, client="many")
    shared.engine.step()
    one, _ = shared.submit(prompt(50, 24), 1, client="one")
    for _ in range(3):
        shared.engine.step()
    assert one.ended  # 24 tokens at half of 16 a step
    for batch in shared.executor.batches:
        assert len(batch.tokens) == 16  # and nothing is left unused
    shared.run()


def test_what_one_client_leaves_goes_to_the_others(bench) -> None:
    shared = bench(context=256, pages=256)
    shared.submit(prompt(1, 100), 1, client="many")
    shared.submit(prompt(2, 3), 40, client="one")
    shared.engine.step()
    assert len(shared.executor.batches[0].tokens) == 16
    shared.engine.step()
    assert len(shared.executor.batches[1].tokens) == 16
    shared.run()


def test_requests_that_were_taken_back_cost_no_turns(bench) -> None:
    shared = bench(max_sequences=1)
    others = [shared.submit(prompt(i, 10), 6, client="other")[0] for i in range(9)]
    mine = [shared.submit(prompt(20 + i, 10), 6, client="mine") for i in range(30)]
    shared.engine.step()
    for number, (_, request) in enumerate(mine):
        if number != 20:
            request.cancel()
    shared.engine.step()
    last, _ = shared.submit(prompt(60, 10), 6, client="mine")
    shared.run()
    ended = sorted(
        [*others, mine[20][0], last], key=lambda listener: listener.finish.stats.queue_seconds
    )
    assert ended.index(mine[20][0]) <= 2
    assert ended.index(last) <= 4


def test_one_client_is_served_in_order_of_arrival(bench) -> None:
    alone = bench(max_sequences=2)
    listeners = [alone.submit(prompt(i, 5), 3, client="a")[0] for i in range(6)]
    alone.run()
    waits = [listener.finish.stats.queue_seconds for listener in listeners]
    ended = sorted(listeners, key=lambda item: item.finish.stats.queue_seconds)
    assert alone.engine.stats().preemptions == 0
    assert len(waits) == len(ended) == 6


@pytest.mark.parametrize("speculation", ["off", "auto"])
def test_many_random_requests_of_some_clients(bench, monkeypatch, speculation: str) -> None:
    import random

    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    source = random.Random(1)
    busy = bench(pages=16, max_sequences=3, step_tokens=9, max_rows=9)
    pending = []
    for number in range(60):
        ids = (prompt(source.randrange(4), source.randrange(2, 7)) * 9)[: source.randrange(1, 40)]
        count = source.randrange(1, 20)
        options = {"temperature": 0.5, "seed": number}
        listener, _ = busy.submit(
            ids, count, client=source.choice("aaab"), speculation=speculation, **options
        )
        for _ in range(source.randrange(6)):
            busy.engine.step()
        pending.append((listener, ids, count, options))
    busy.run()
    for listener, ids, count, options in pending:
        assert listener.ids == busy.solo(ids, count, **options)
