from __future__ import annotations

import subprocess
import sys
from array import array

import pytest

from edge_llm.runner.pages import PagePool
from edge_llm.runner.sampling import SamplingParams
from edge_llm.runner.scheduler import Scheduler, Step
from edge_llm.runner.sequence import Sequence
from edge_llm.runner.statistics import RequestClock

SIZE = 4


def sequence(
    arrival: int, prompt: list[int], max_tokens: int = 8, *, want_logits: bool = False
) -> Sequence:
    return Sequence(
        tokens=array("i", prompt),
        prompt_length=len(prompt),
        limit=len(prompt) + (0 if want_logits else max_tokens),
        params=SamplingParams(),
        seed=0,
        stop_ids=frozenset(),
        on_event=lambda event: None,
        clock=RequestClock(0.0),
        want_logits=want_logits,
        arrival=arrival,
    )


def scheduler(pages: int = 32, max_sequences: int = 4, step_tokens: int = 8, max_rows: int = 8):
    pool = PagePool(pages, SIZE)
    return pool, Scheduler(
        pool, max_sequences=max_sequences, step_tokens=step_tokens, max_rows=max_rows
    )


def advance(policy: Scheduler, step: Step) -> None:
    """What the engine does after a step: token 0 follows every finished prompt."""
    for item, count in step.slices.items():
        policy.advance(item, count)
        if item.remaining == 0 and not item.want_logits:
            item.tokens.append(0)
            if len(item.tokens) >= item.limit:
                policy.remove(item)


def distinct(start: int, count: int) -> list[int]:
    return list(range(start, start + count))


def test_the_policy_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; import edge_llm.runner.scheduler; "
        "sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_step_is_every_decoding_sequence_and_then_chunks_of_prompts() -> None:
    _, policy = scheduler()
    first, second = sequence(0, distinct(0, 3)), sequence(1, distinct(100, 20))
    policy.add(first)
    policy.add(second)
    step = policy.schedule()
    assert step.slices == {first: 3, second: 5}  # 8 tokens
    advance(policy, step)
    step = policy.schedule()
    assert step.slices == {first: 1, second: 7}
    assert next(iter(step.slices)) is first


def test_prompts_are_taken_in_order_of_arrival() -> None:
    _, policy = scheduler()
    first, second = sequence(0, distinct(0, 12)), sequence(1, distinct(100, 2))
    policy.add(second)
    policy.add(first)
    assert policy.schedule().slices == {first: 8}


def test_no_more_than_max_sequences_run() -> None:
    _, policy = scheduler(max_sequences=2)
    items = [sequence(i, [100 * i]) for i in range(3)]
    for item in items:
        policy.add(item)
    assert policy.schedule().slices == {items[0]: 1, items[1]: 1}
    policy.remove(items[0])
    assert items[2] in policy.schedule().slices


def test_a_sequence_waits_until_its_reservation_is_there() -> None:
    pool, policy = scheduler(pages=6)
    first, second = sequence(0, distinct(0, 4), 9), sequence(1, distinct(50, 8), 8)
    policy.add(first)
    policy.add(second)
    # The first may fill 12 positions, the second 15: three and four pages of six.
    assert policy.schedule().slices == {first: 4}
    policy.remove(first)
    assert pool.available == 6
    assert policy.schedule().slices == {second: 8}


def test_who_waits_longest_is_not_overtaken() -> None:
    _, policy = scheduler(pages=6)
    first, large, small = (
        sequence(0, distinct(0, 4), 9),
        sequence(1, distinct(50, 16), 5),
        sequence(2, [99], 2),
    )
    for item in (first, large, small):
        policy.add(item)
    assert policy.schedule().slices == {first: 4}


def test_the_youngest_gives_its_pages_when_they_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_llm.runner.scheduler.RESERVE_TOKENS", 0)
    pool, policy = scheduler(pages=4)
    old, young = sequence(0, distinct(0, 4), 12), sequence(1, distinct(50, 4), 12)
    policy.add(old)
    policy.add(young)
    order = []
    while policy.running or policy.waiting:
        step = policy.schedule()
        assert step.slices
        order.append([item.arrival for item in step.slices])
        advance(policy, step)
    assert policy.preemptions > 0
    assert order[0] == [0, 1]
    assert order[-1] == [1]
    assert pool.available == 4


def test_a_prompt_waits_for_the_one_that_computes_its_beginning() -> None:
    _, policy = scheduler()
    prompt = distinct(0, 12)
    first, second = sequence(0, prompt), sequence(1, prompt)
    policy.add(first)
    policy.add(second)
    step = policy.schedule()
    assert step.slices == {first: 8}
    advance(policy, step)
    step = policy.schedule()
    assert step.slices == {first: 4}
    advance(policy, step)
    step = policy.schedule()
    assert step.slices == {first: 1, second: 1}
    assert second.cached_tokens == 11
    assert second.pages[:2] == first.pages[:2]
    assert step.copies == [(first.pages[2], second.pages[2])]


def test_logits_take_one_row_a_token() -> None:
    _, policy = scheduler(max_rows=5)
    item = sequence(0, distinct(0, 12), want_logits=True)
    policy.add(item)
    assert policy.schedule().slices == {item: 5}


def test_a_prompt_that_nothing_follows_needs_pages_for_all_of_it() -> None:
    _, policy = scheduler(pages=3)
    first, second = sequence(0, distinct(0, 5), 2), sequence(1, distinct(50, 5), 0)
    policy.add(first)
    policy.add(second)
    assert policy.schedule().slices == {first: 5}  # two pages each


def test_a_chunk_bounds_the_tokens_of_a_step() -> None:
    _, policy = scheduler()
    item = sequence(0, distinct(0, 12), want_logits=True)
    item.chunk = 3
    policy.add(item)
    assert policy.schedule().slices == {item: 3}


def test_logits_are_computed_from_the_first_token_on() -> None:
    _, policy = scheduler(step_tokens=16, max_rows=16)
    first = sequence(0, distinct(0, 8), 2)
    policy.add(first)
    while policy.running or policy.waiting:
        advance(policy, policy.schedule())
    item = sequence(1, distinct(0, 8), want_logits=True)
    policy.add(item)
    assert policy.schedule().slices == {item: 8}
    assert item.cached_tokens == 0


def test_a_smaller_budget_cuts_prompts_but_not_the_chunks_of_an_evaluation() -> None:
    _, policy = scheduler()
    first = sequence(0, distinct(0, 12))
    policy.add(first)
    assert policy.schedule(5).slices == {first: 5}
    policy.remove(first)
    item = sequence(1, distinct(0, 12), want_logits=True)
    item.chunk = 7
    policy.add(item)
    assert policy.schedule(5).slices == {item: 7}
