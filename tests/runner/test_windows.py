"""States with windows: what lies behind is given back, and no bit depends on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bits import assert_same_bits
from prompts import prompt

import edge_llm
from edge_llm.runner.backends.native import block_size
from edge_llm.runner.backends.native import groups as groups_of
from edge_llm.runner.engine.pool import NO_BLOCK
from edge_llm.runner.executor import Float32
from edge_llm.runner.sampling import SamplingParams

WINDOW = 6


def test_a_long_answer_holds_no_more_than_its_window(bench) -> None:
    sliding = bench(pages=(64, 64), windows=(0, WINDOW), context=200)
    listener, _ = sliding.submit(prompt(1, 20), 150)
    held = []
    while sliding.engine.step():
        groups = sliding.engine._pool.groups
        held.append(tuple(group.count - group.available for group in groups))
    assert len(listener.ids) == 150
    whole, window = zip(*held, strict=True)
    assert max(whole) > 40
    assert max(window[5:]) <= WINDOW // 4 + 2  # decode: the window, wherever it begins in a block
    assert max(window) <= (WINDOW - 1 + 16) // 4 + 2  # prefill: and a step
    assert listener.ids == bench(context=200).solo(prompt(1, 20), 150)


@pytest.mark.parametrize("speculation", ["off", "ngram", "auto"])
def test_many_random_requests_in_few_blocks(
    bench, monkeypatch: pytest.MonkeyPatch, speculation: str
) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    source = random.Random(0)
    busy = bench(
        pages=(16, 15, 13), windows=(0, WINDOW, 3), max_sequences=3, step_tokens=9, max_rows=9
    )
    pending = []
    for number in range(60):
        ids = (prompt(source.randrange(4), source.randrange(2, 7)) * 9)[: source.randrange(1, 40)]
        count = source.randrange(1, 20)
        options = {"temperature": 0.5, "seed": number}
        listener, _ = busy.submit(ids, count, speculation=speculation, **options)
        for _ in range(source.randrange(6)):
            busy.engine.step()
        pending.append((listener, ids, count, options))
    busy.run()
    assert busy.engine.stats().preemptions > 0
    stats = [listener.finish.stats for listener, *_ in pending]
    assert sum(item.cached_tokens > 0 for item in stats) > 10
    for listener, ids, count, options in pending:
        assert listener.ids == busy.solo(ids, count, **options)


def test_a_conversation_goes_on_where_it_ended(bench) -> None:
    chat = bench(pages=(64, 8), windows=(0, WINDOW))
    ids = prompt(1, 30)
    first, _ = chat.submit(ids, 10)
    chat.run()
    turn = [*ids, *first.ids, *prompt(2, 5)]
    second, _ = chat.submit(turn, 10)
    chat.run()
    assert (second.finish.stats.cached_tokens, second.finish.stats.cache) == (39, "partial")
    assert second.ids == chat.solo(turn, 10)
    again, _ = chat.submit(ids[:12], 10)  # its window had to make room
    chat.run()
    assert (again.finish.stats.cached_tokens, again.finish.stats.cache) == (0, "evicted")
    assert again.ids == chat.solo(ids[:12], 10)


# ---- a program whose layers differ ----

TOKENS = [token % 256 for token in prompt(3, 190)]


@dataclass
class Mixed:
    """A program with a window of 70 positions on some layers, and logits of TOKENS without reuse
    of any block."""

    path: Path
    expected: Float32


@pytest.fixture(scope="module")
def mixed(tiny_program: Callable[..., Path]) -> Mixed:
    path = tiny_program(
        "8da8w",
        family="qwen2",
        use_sliding_window=True,
        sliding_window=70,
        num_hidden_layers=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    with edge_llm.load(path, threads=1, max_sequences=1) as llm:
        assert [group.window for group in llm.program.plan.groups] == [70, 0]
        return Mixed(path, llm.logits(TOKENS, chunk=len(TOKENS)))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_do_not_depend_on_what_is_given_back(mixed: Mixed, threads: int) -> None:
    with edge_llm.load(mixed.path, threads=threads) as llm:
        for chunk in (len(TOKENS), 50, 7, 1):
            assert_same_bits(llm.logits(TOKENS, chunk=chunk), mixed.expected)


@pytest.mark.parametrize("speculation", ["off", "ngram", "auto"])
def test_text_with_cache_hits_preemption_and_speculation(
    mixed: Mixed, speculation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    params = SamplingParams(
        temperature=0.3,
        seed=5,
        max_tokens=60,
        ignore_eos=True,
        top_logprobs=2,
        speculation="off",
    )
    prompts = [TOKENS[:90], TOKENS[:140], [*TOKENS[:90], *TOKENS[:40]], TOKENS[20:160]]
    with edge_llm.load(mixed.path, threads=1, max_sequences=1) as llm:
        expected = [llm.generate(ids, params) for ids in prompts]
        groups = groups_of(llm.program.plan, llm.program.documents.model.kv_dtype)
    params = replace(params, speculation=speculation)
    budget = 7 * sum(group.block_bytes for group in groups)  # two prompts hardly fit
    with edge_llm.load(
        mixed.path, threads=1, max_sequences=3, step_tokens=32, kv_budget=budget
    ) as llm:
        for _ in range(2):
            streams = [llm.stream(ids, params) for ids in prompts]
            for stream, one in zip(streams, expected, strict=True):
                pieces = list(stream)
                ids = tuple(token for piece in pieces for token in piece.token_ids)
                logprobs = tuple(item for piece in pieces for item in piece.logprobs or ())
                assert (ids, logprobs) == (one.token_ids, one.logprobs)
        assert llm.stats().preemptions > 0


def test_a_native_step_never_needs_a_block_behind_the_window(mixed: Mixed) -> None:
    with edge_llm.load(mixed.path, threads=1, max_sequences=1) as llm:
        tables: list[list[list[int]]] = []
        engine, step = llm.engine, llm.engine._executor.step

        def watched(batch):
            tables.append([table[0].tolist() for table in batch.block_tables])
            return step(batch)

        engine._executor.step = watched
        llm.generate(TOKENS, SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True))
    sliding, whole = tables[-1]
    needed = (len(TOKENS) + 28 - 70 + 1) // block_size()
    assert NO_BLOCK not in whole
    assert sliding[:needed] == [NO_BLOCK] * needed
    assert NO_BLOCK not in sliding[needed:]
