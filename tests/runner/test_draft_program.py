"""A second program drafts: it changes no token, follows what was accepted, and stops where that
does not pay."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import edge_llm
from edge_llm.api.loading import memory_needed
from edge_llm.errors import CapacityError, ConfigError, NativeError, RequestError
from edge_llm.runner.config import RunnerConfig
from edge_llm.runner.engine.drafters import ProgramDrafter
from edge_llm.runner.engine.payoff import Payoff
from edge_llm.runner.sampling import SamplingParams

VOCAB = 264
TinyProgram = Callable[..., Path]


def asked(seed: int) -> tuple[list[int], SamplingParams]:
    source = random.Random(seed)

    def maybe(chance: float, value: Any, neutral: Any) -> Any:
        return value if source.random() < chance else neutral

    ids = source.choices(range(VOCAB), k=source.randrange(1, 150))
    return ids, SamplingParams(
        temperature=source.choice([0.0, 0.0, 0.3, 1.0]),
        top_k=maybe(0.3, 5, 0),
        top_p=maybe(0.3, 0.8, 1.0),
        repetition_penalty=maybe(0.3, 1.2, 1.0),
        frequency_penalty=maybe(0.2, 0.5, 0.0),
        dry_multiplier=maybe(0.2, 0.8, 0.0),
        logit_bias=maybe(0.3, {5: 4.0, VOCAB - 1: 3.0}, {}),
        min_tokens=maybe(0.2, 1, 0),
        top_logprobs=maybe(0.3, 2, None),
        prompt_logprobs=maybe(0.1, 1, None),
        max_tokens=source.choice([1, 2, 9, 40, 70]),
        ignore_eos=source.random() < 0.5,
        seed=seed,
    )


def answers(
    llm: edge_llm.LLM, requests: list[tuple[list[int], SamplingParams]], speculation: str
) -> list[edge_llm.Completion]:
    streams = [llm.stream(ids, params, speculation=speculation) for ids, params in requests]
    return [stream.completions()[0] for stream in streams]


def told(answer: edge_llm.Completion) -> tuple[Any, ...]:
    return answer.token_ids, answer.logprobs, answer.prompt_logprobs, answer.finish_reason


@pytest.mark.parametrize("speculation", ["auto", "draft"])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5_text"])
def test_no_token_changes(
    tiny_program: TinyProgram, monkeypatch: pytest.MonkeyPatch, family: str, speculation: str
) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    source = random.Random(family)
    monkeypatch.setattr(
        Payoff, "length", lambda self, chance, most, each=0.0: most and source.randrange(most + 1)
    )
    requests = [asked(seed) for seed in range(60)]
    path = tiny_program("8da8w")
    with edge_llm.load(path, threads=1, max_sequences=1) as llm:
        expected = [told(answer) for answer in answers(llm, requests, "off")]
    # A quantized one is often right about its floats, a random other one hardly ever.
    draft = tiny_program("fp32", family=family)
    with edge_llm.load(path, threads=2, max_sequences=5, draft=draft, context=256) as llm:
        got = answers(llm, requests, speculation)
        assert llm.stats().blocks_free == llm.stats().blocks
        pool = llm.engine._drafts._program._pool  # type: ignore[union-attr]
        assert pool.available == pool.count
    assert [told(answer) for answer in got] == expected
    stats = [answer.stats for answer in got]
    assert sum(item.drafted_tokens > item.accepted_tokens for item in stats) > 10
    if family == "llama":
        assert sum(item.accepted_tokens for item in stats) > 200


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_program_is_nearly_always_right(
    tiny_program: TinyProgram, temperature: float
) -> None:
    path = tiny_program("8da8w")
    options: dict[str, Any] = {
        "temperature": temperature,
        "seed": 4,
        "max_tokens": 120,
        "ignore_eos": True,
    }
    prompts = [[3, 1, 4], [1, 5, 9, 2], list(range(100))]
    with edge_llm.load(path, threads=1) as llm:
        expected = [llm.generate(ids, speculation="off", **options).token_ids for ids in prompts]
    with edge_llm.load(path, threads=1, draft=path) as llm:
        for ids, tokens in zip(prompts, expected, strict=True):
            answer = llm.generate(ids, speculation="draft", **options)
            assert answer.token_ids == tokens
            assert answer.stats.accepted_tokens > 90
            # All were right but for those that were cut by the end of the answer.
            assert answer.stats.drafted_tokens - answer.stats.accepted_tokens <= 1


def test_constraints_and_windows_go_with_drafts(tiny_program: TinyProgram) -> None:
    path = tiny_program("8da8w")
    options: dict[str, Any] = {"temperature": 0.7, "seed": 1, "max_tokens": 60}
    forms: list[dict[str, Any]] = [{"regex": "[a-z]{3}( [0-9]{2}){9}"}, {"choice": ["yes", "no"]}]
    with edge_llm.load(path, threads=1, context=128, context_policy="sliding-window") as llm:
        expected = [llm.generate("hello", speculation="off", **form, **options) for form in forms]
        long = {**options, "max_tokens": 300, "ignore_eos": True}
        window = llm.generate("hello", speculation="off", **long)
    with edge_llm.load(
        path, threads=1, context=128, context_policy="sliding-window", draft=path
    ) as llm:
        for form, answer in zip(forms, expected, strict=True):
            got = llm.generate("hello", speculation="draft", **form, **options)
            assert told(got) == told(answer)
        got = llm.generate("hello", speculation="draft", **long)
        assert told(got) == told(window)
        assert got.stats.context == window.stats.context is not None
        assert got.stats.accepted_tokens > 150


def test_an_edited_conversation_is_found_again(tiny_program: TinyProgram) -> None:
    path = tiny_program("8da8w")
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}
    ids = [random.Random(2).randrange(VOCAB) for _ in range(200)]
    turns = [ids, [*ids[:130], 7, 8, 9], [*ids, 1, 2, 3]]
    with edge_llm.load(path, threads=1) as llm:
        expected = [told(llm.generate(turn, speculation="off", **options)) for turn in turns]
    with edge_llm.load(path, threads=1, draft=path) as llm:
        for turn, answer in zip(turns, expected, strict=True):
            got = llm.generate(turn, speculation="draft", **options)
            assert told(got) == answer
            assert got.stats.accepted_tokens > 25


def test_where_the_program_fails_answers_go_on(
    tiny_program: TinyProgram, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny_program("8da8w")
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}
    with edge_llm.load(path, threads=1, draft=path) as llm:
        expected = llm.generate([1, 2, 3], speculation="off", **options)
        executor = llm.engine._drafts._program._executor  # type: ignore[union-attr]

        def fails(batch: Any) -> Any:
            raise NativeError("a bug")

        monkeypatch.setattr(executor, "step", fails)
        assert told(llm.generate([1, 2, 3], speculation="draft", **options)) == told(expected)
        assert told(llm.generate([1, 2, 3], speculation="auto", **options)) == told(expected)
    assert caplog.text.count("the draft program failed") == 1


def test_memory_is_shared(tiny_program: TinyProgram) -> None:
    path, small = tiny_program("8da8w"), tiny_program("8da8w", num_hidden_layers=1)
    budget = 300_000
    with edge_llm.load(path, threads=1, kv_budget=budget) as alone:
        whole = alone.memory
        blocks = alone.stats().blocks
    with edge_llm.load(path, threads=1, kv_budget=budget, draft=small) as llm:
        assert whole < llm.memory < whole + small.stat().st_size
        assert llm.stats().blocks < blocks
    with pytest.raises(CapacityError):
        edge_llm.load(path, threads=1, kv_budget=1000, draft=small)


def test_another_vocabulary_is_refused(tiny_program: TinyProgram, smollm2_fp32: Path) -> None:
    path = tiny_program("8da8w")
    with pytest.raises(ConfigError, match=r"cannot draft for .*: it has \d+ tokens, expected"):
        edge_llm.load(path, draft=smollm2_fp32)
    # A server with several programs asks beforehand what it may load later.
    with pytest.raises(ConfigError, match=r"cannot draft for .*: it has \d+ tokens, expected"):
        memory_needed(path, RunnerConfig(draft=smollm2_fp32))
    with pytest.raises(ConfigError, match="draft is 3, expected True, False or a program"):
        edge_llm.load(path, draft=3)  # type: ignore[arg-type]


def test_a_prompt_of_padding_ends_no_drafts(tiny_program: TinyProgram) -> None:
    path, small = tiny_program("8da8w", vocab_size=320), tiny_program("8da8w")
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 20, "ignore_eos": True}
    with edge_llm.load(path, threads=1, draft=small) as llm:
        padded = [1, 2, 3, 310]  # a token that the draft program has not
        expected = llm.generate(padded, speculation="off", **options)
        answer = llm.generate(padded, speculation="draft", **options)
        assert answer.token_ids == expected.token_ids
        assert llm.generate([1, 2, 3], speculation="draft", **options).stats.drafted_tokens


def test_draft_without_a_program_is_refused(tiny_program: TinyProgram) -> None:
    with (
        edge_llm.load(tiny_program("8da8w"), threads=1) as llm,
        pytest.raises(RequestError, match="neither a draft method nor a draft program"),
    ):
        llm.generate("a", speculation="draft")


# ---- how much is drafted ----


def measured(rise: float) -> Payoff:
    payoff = Payoff()
    for _ in range(40):
        for tokens in range(1, 20):
            payoff.record(tokens, 1e-3 * (1 + rise * (tokens - 1)))
    return payoff


def drafted(drafter: ProgramDrafter, payoff: Payoff, chance: float, steps: int) -> tuple[int, int]:
    """Return the tokens that are drafted and accepted in so many steps."""
    source = random.Random(3)
    proposed = accepted = 0
    for _ in range(steps):
        payoff.begin(1)
        count = len(drafter.propose([1, 2, 3], 16))
        if count:
            right = next((i for i in range(count) if source.random() >= chance), count)
            drafter.accept(count, right)
            proposed += count
            accepted += right
    return proposed, accepted


def test_it_switches_itself_off_and_on() -> None:
    payoff = measured(0.05)
    drafter = ProgramDrafter(payoff, lambda: 0.2)
    _, right = drafted(drafter, payoff, 0.9, 300)
    assert right > 600
    drafted(drafter, payoff, 0.0, 200)
    bad, _ = drafted(drafter, payoff, 0.0, 2000)
    assert 0 < bad < 60  # a trial now and then
    soon, _ = drafted(drafter, payoff, 1.0, 300)
    assert soon > 400
    _, right = drafted(drafter, payoff, 0.9, 300)
    assert right > 600


def test_a_trial_waits_until_the_program_has_caught_up() -> None:
    payoff = measured(0.05)
    drafter = ProgramDrafter(payoff, lambda: 0.2)
    drafted(drafter, payoff, 0.0, 200)
    for _ in range(1000):
        payoff.begin(1)
        if drafter.propose([1], 16):
            break
    for _ in range(3):  # it is not ready: nobody checks what was proposed
        payoff.begin(1)
        assert drafter.propose([1], 16)
    drafter.accept(2, 1)
    payoff.begin(1)
    assert not drafter.propose([1], 16)


def test_what_is_right_and_does_not_pay_is_seldom_tried() -> None:
    payoff = measured(1.5)
    drafter = ProgramDrafter(payoff, lambda: 0.2)
    drafted(drafter, payoff, 1.0, 300)
    tokens, right = drafted(drafter, payoff, 1.0, 1000)
    assert tokens == right < 20


def test_what_costs_too_much_is_not_drafted() -> None:
    payoff = measured(0.05)
    cheap, dear = (
        drafted(ProgramDrafter(payoff, partial(float, cost)), payoff, 0.7, 200)[0]
        for cost in (0.05, 1.5)
    )
    assert cheap > 400
    assert dear < 40
