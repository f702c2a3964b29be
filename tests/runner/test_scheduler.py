from __future__ import annotations

import subprocess
import sys
from array import array

import pytest

from edge_llm.runner.engine.pool import BlockPool
from edge_llm.runner.engine.scheduler import Scheduler, Step
from edge_llm.runner.engine.sequence import Sequence
from edge_llm.runner.engine.statistics import RequestClock
from edge_llm.runner.sampling import SamplingParams

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


def scheduler(blocks: int = 32, max_sequences: int = 4, step_tokens: int = 8, max_rows: int = 8):
    pool = BlockPool([blocks], [0], SIZE, step_tokens)
    return pool, Scheduler(
        pool, max_sequences=max_sequences, step_tokens=step_tokens, max_rows=max_rows
    )


def advance(policy: Scheduler, step: Step) -> None:
    """Return what the engine does after a step: token 0 follows every finished prompt."""
    for item, part in step.slices.items():
        policy.commit(item, item.computed + part.count)
        if item.remaining == 0 and not item.want_logits:
            item.accept(0)
            if len(item.tokens) >= item.limit:
                policy.remove(item)


def counts(step: Step) -> dict[Sequence, int]:
    return {item: part.tokens for item, part in step.slices.items()}


def distinct(start: int, count: int) -> list[int]:
    return list(range(start, start + count))


def test_the_policy_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; import edge_llm.runner.engine.scheduler; "
        "sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_computed_at_once_gets_a_step_that_holds_it() -> None:
    pool, policy = scheduler(step_tokens=20)
    texts = [sequence(number, distinct(0, count)) for number, count in enumerate((5, 12, 4, 20))]
    for text in texts:
        text.at_once, text.limit = True, text.prompt_length
        policy.add(text)
    steps = []
    while policy.waiting or policy.running:
        step = policy.schedule(10)
        steps.append(counts(step))
        for item, part in step.slices.items():
            policy.commit(item, part.count)
            policy.remove(item)
    # the budget bounds what comes together, not what cannot come in parts
    assert steps == [{texts[0]: 5}, {texts[1]: 12}, {texts[2]: 4}, {texts[3]: 20}]
    assert all(text.cached_tokens == 0 for text in texts)  # although all begin alike
    assert pool.cached == 0


def test_a_step_is_every_decoding_sequence_and_then_chunks_of_prompts() -> None:
    _, policy = scheduler()
    first, second = sequence(0, distinct(0, 3)), sequence(1, distinct(100, 20))
    policy.add(first)
    policy.add(second)
    step = policy.schedule()
    assert counts(step) == {first: 3, second: 5}  # 8 tokens
    advance(policy, step)
    step = policy.schedule()
    assert counts(step) == {first: 1, second: 7}
    assert next(iter(step.slices)) is first


def test_prompts_are_taken_in_order_of_arrival() -> None:
    _, policy = scheduler()
    first, second = sequence(0, distinct(0, 12)), sequence(1, distinct(100, 2))
    policy.add(first)
    policy.add(second)
    assert counts(policy.schedule()) == {first: 8}


def test_no_more_than_max_sequences_run() -> None:
    _, policy = scheduler(max_sequences=2)
    items = [sequence(i, [100 * i]) for i in range(3)]
    for item in items:
        policy.add(item)
    assert counts(policy.schedule()) == {items[0]: 1, items[1]: 1}
    policy.remove(items[0])
    assert items[2] in policy.schedule().slices


def test_a_sequence_waits_until_its_reservation_is_there() -> None:
    pool, policy = scheduler(blocks=6)
    first, second = sequence(0, distinct(0, 4), 9), sequence(1, distinct(50, 8), 8)
    policy.add(first)
    policy.add(second)
    # The first may fill 12 positions, the second 15: three and four blocks of six.
    assert counts(policy.schedule()) == {first: 4}
    policy.remove(first)
    assert pool.available == 6
    assert counts(policy.schedule()) == {second: 8}


def test_who_waits_longest_is_not_overtaken() -> None:
    _, policy = scheduler(blocks=6)
    first, large, small = (
        sequence(0, distinct(0, 4), 9),
        sequence(1, distinct(50, 16), 5),
        sequence(2, [99], 2),
    )
    for item in (first, large, small):
        policy.add(item)
    assert counts(policy.schedule()) == {first: 4}


def test_the_youngest_gives_its_blocks_when_they_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    pool, policy = scheduler(blocks=4)
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
    assert counts(step) == {first: 8}
    advance(policy, step)
    step = policy.schedule()
    assert counts(step) == {first: 4}
    advance(policy, step)
    step = policy.schedule()
    assert counts(step) == {first: 1, second: 1}
    assert second.cached_tokens == 11
    assert second.tables[0][:2] == first.tables[0][:2]
    assert step.copies == [(0, first.tables[0][2], second.tables[0][2])]


def test_logits_take_one_row_a_token() -> None:
    _, policy = scheduler(max_rows=5)
    item = sequence(0, distinct(0, 12), want_logits=True)
    policy.add(item)
    assert counts(policy.schedule()) == {item: 5}


def test_a_prompt_that_nothing_follows_needs_blocks_for_all_of_it() -> None:
    _, policy = scheduler(blocks=3)
    first, second = sequence(0, distinct(0, 5), 2), sequence(1, distinct(50, 5), 0)
    policy.add(first)
    policy.add(second)
    assert counts(policy.schedule()) == {first: 5}  # two blocks each


def test_a_chunk_bounds_the_tokens_of_a_step() -> None:
    _, policy = scheduler()
    item = sequence(0, distinct(0, 12), want_logits=True)
    item.chunk = 3
    policy.add(item)
    assert counts(policy.schedule()) == {item: 3}


def test_logits_are_computed_from_the_first_token_on() -> None:
    _, policy = scheduler(step_tokens=16, max_rows=16)
    first = sequence(0, distinct(0, 8), 2)
    policy.add(first)
    while policy.running or policy.waiting:
        advance(policy, policy.schedule())
    item = sequence(1, distinct(0, 8), want_logits=True)
    policy.add(item)
    assert counts(policy.schedule()) == {item: 8}
    assert item.cached_tokens == 0


def test_a_smaller_budget_cuts_prompts_but_not_the_chunks_of_an_evaluation() -> None:
    _, policy = scheduler()
    first = sequence(0, distinct(0, 12))
    policy.add(first)
    assert counts(policy.schedule(5)) == {first: 5}
    policy.remove(first)
    item = sequence(1, distinct(0, 12), want_logits=True)
    item.chunk = 7
    policy.add(item)
    assert counts(policy.schedule(5)) == {item: 7}


# ---- what a slice is ----


def kinds(step: Step) -> list[str]:
    return [part.kind for part in step.slices.values()]


def test_a_prompt_of_one_token_is_a_prefill() -> None:
    _, policy = scheduler()
    first, second = sequence(0, [1]), sequence(1, distinct(50, 9))
    policy.add(first)
    policy.add(second)
    step = policy.schedule()
    assert (kinds(step), counts(step)) == (["prefill", "prefill"], {first: 1, second: 7})
    advance(policy, step)
    step = policy.schedule()
    assert (kinds(step), counts(step)) == (["decode", "prefill"], {first: 1, second: 2})


def test_what_is_computed_again_is_a_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    _, policy = scheduler(blocks=4)
    old, young = sequence(0, distinct(0, 4), 12), sequence(1, distinct(50, 4), 12)
    policy.add(old)
    policy.add(young)
    again = None
    while policy.running or policy.waiting:
        step = policy.schedule()
        if policy.preemptions and young in step.slices and again is None:
            again = step.slices[young].kind
        advance(policy, step)
    assert again == "prefill"


def decoding(policy: Scheduler, count: int) -> list[Sequence]:
    items = [sequence(i, [100 * i], 40) for i in range(count)]
    for item in items:
        policy.add(item)
    advance(policy, policy.schedule())
    return items


def test_drafts_come_after_the_tokens_that_are_sure() -> None:
    _, policy = scheduler(step_tokens=8, max_rows=8)
    items = decoding(policy, 3)
    for item in items:
        item.draft = [7, 8, 9, 10]
    step = policy.schedule()
    assert kinds(step) == ["verify", "verify", "decode"]
    assert counts(step) == {items[0]: 5, items[1]: 2, items[2]: 1}
    assert step.slices[items[1]].draft == [7]


def test_drafts_leave_half_of_the_room_to_prompts() -> None:
    _, policy = scheduler(step_tokens=11, max_rows=11)
    (item,) = decoding(policy, 1)
    item.draft = distinct(7, 10)
    late = sequence(1, distinct(50, 20))
    policy.add(late)
    assert counts(policy.schedule()) == {item: 6, late: 5}


def test_drafts_preempt_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    pool, policy = scheduler(blocks=3)
    first, second = decoding(policy, 2)
    first.draft = second.draft = distinct(7, 6)
    step = policy.schedule()
    assert counts(step) == {first: 4 + 3 - 0, second: 1} or policy.preemptions == 0
    assert policy.preemptions == 0
    assert pool.available == 0


def test_a_rewind_gives_back_what_a_draft_took() -> None:
    pool, policy = scheduler()
    (item,) = decoding(policy, 1)
    item.draft = distinct(7, 7)
    held = pool.available
    step = policy.schedule()
    assert pool.available == held - 2
    policy.commit(item, item.computed + step.slices[item].count)
    policy.rewind(item)
    assert (pool.available, item.computed, len(item.tables[0])) == (held, 2, 1)


def test_what_was_computed_but_not_accepted_is_not_found() -> None:
    pool, policy = scheduler()
    (item,) = decoding(policy, 1)  # 0, then 0 sampled
    item.draft = distinct(7, 6)
    policy.schedule()
    policy.commit(item, 2)
    policy.rewind(item)
    policy.remove(item)
    other = sequence(5, [0, 0, 7, 8, 9])
    chain: list[bytes] = []
    assert pool.match(other.tokens, chain, 4).tokens == 2
