"""Drafts change no token: sampled or greedy, beside neighbours, with penalties, biases,
constraints, stops and ends inside a draft, through preemption and cache hits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_llm.errors import GenerationError, RequestError
from edge_llm.program.file import Program
from edge_llm.runner.backends.native import block_size, load
from edge_llm.runner.backends.native import groups as groups_of
from edge_llm.runner.engine.constraints import AllowedSequences, Constraint, Mask, mask_of
from edge_llm.runner.engine.drafters import MOST_TOKENS, Drafter, DraftLength, NgramDrafter
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.engine.events import ErrorEvent, Event, FinishEvent, PromptEvent, TokenEvent
from edge_llm.runner.engine.payoff import Payoff
from edge_llm.runner.engine.requests import EngineFacts
from edge_llm.runner.executor import Limits
from edge_llm.runner.sampling import SamplingParams

CONTEXT, VOCAB, STOP = 256, 288, 7


class WildDrafter:
    """Proposes what the text's own end says, or anything at all, more than is asked for."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        wild = self._random.choices([-1, VOCAB, STOP, *range(VOCAB)], k=most + 3)
        return [*list(tokens)[-3:], *wild] if self._random.random() < 0.7 else []

    def accept(self, drafted: int, accepted: int) -> None:
        assert 0 <= accepted <= drafted
        assert drafted > 0


@dataclass
class Asked:
    """One request, and what it heard."""

    prompt: list[int]
    params: SamplingParams
    choices: list[list[int]] = field(default_factory=list)
    wild: bool = False
    events: list[Event] = field(default_factory=list)

    def submit(self, engine: Engine, *, speculation: str) -> None:
        self.events = []
        constraint: Constraint | None = None
        drafter: Drafter | None = None
        if self.choices:
            constraint = AllowedSequences(self.choices, end_ids=[STOP], vocab=VOCAB)
        if speculation == "ngram" and self.wild:
            drafter = WildDrafter(len(self.prompt))
        params = replace(self.params, speculation=speculation)
        engine.submit(
            self.prompt, params, self.events.append, constraint=constraint, drafter=drafter
        )

    def outcome(self) -> list[object]:
        """Everything but times, what the cache had, and the drafts."""
        heard: list[object] = []
        for event in self.events:
            match event:
                case TokenEvent() | PromptEvent():
                    heard.append(event)
                case FinishEvent(reason, stats):
                    heard.append((reason, stats.prompt_tokens, stats.completion_tokens))
                case ErrorEvent(error):
                    heard.append(str(error))
        return heard


def asked(seed: int) -> Asked:
    """A request of mixed settings, most with a prompt that repeats itself."""
    source = random.Random(seed)
    pattern = random.Random(seed % 7).choices(range(VOCAB), k=1 + seed % 7)
    prompt = (pattern * 40)[: source.randrange(2, 70)]
    if source.random() < 0.3:
        prompt += source.choices(range(VOCAB), k=10)

    def maybe(chance: float, value: object, neutral: object) -> object:
        return value if source.random() < chance else neutral

    limit = source.choice([0, 1, 2, 5, 16, 40])
    params = SamplingParams(
        temperature=source.choice([0.0, 0.0, 0.2, 0.5, 1.0]),
        top_k=maybe(0.4, source.randrange(1, 5), 0),
        top_p=maybe(0.3, 0.8, 1.0),
        min_p=maybe(0.2, 0.1, 0.0),
        typical_p=maybe(0.1, 0.8, 1.0),
        xtc_probability=maybe(0.1, 0.5, 0.0),
        xtc_threshold=0.05,
        dry_multiplier=maybe(0.2, 0.8, 0.0),
        dry_penalty_last_n=source.choice([-1, 16]),
        min_tokens=min(limit, source.choice([0, 0, 3, 20])),
        repetition_penalty=maybe(0.2, 1.2, 1.0),
        presence_penalty=maybe(0.2, 0.5, 0.0),
        frequency_penalty=maybe(0.2, -0.5, 0.0),
        logit_bias=maybe(0.3, dict.fromkeys(pattern, 8.0), {}),
        seed=seed,
        max_tokens=limit,
        stop_ids=maybe(0.4, tuple(source.choices(pattern, k=2)), None),
        top_logprobs=maybe(0.3, 2, None),
        prompt_logprobs=maybe(0.1, 0, None),
    )
    choices = [(pattern * 9)[at : at + source.randrange(3, 30)] for at in range(3)]
    return Asked(prompt, params, maybe(0.15, choices, []), source.random() < 0.15)


@contextmanager
def engine_on(path: Path, *, blocks: int, step_tokens: int = 64) -> Iterator[Engine]:
    with Program.open(path) as program:
        kv_dtype = program.documents.model.kv_dtype
        states = groups_of(program.plan, kv_dtype)
        executor = load(
            program.plan,
            {weight.tensor: program.weight_data(weight) for weight in program.plan.weights},
            sampleable=program.documents.tokenizer.size,
            limits=Limits(
                max_tokens=step_tokens,
                max_rows=40,
                max_sequences=6,
                blocks=(blocks,) * len(states),
                kv_dtype=kv_dtype,
                threads=1,
            ),
        )
        facts = EngineFacts(
            context=CONTEXT,
            vocab=VOCAB,
            block_size=block_size(),
            stop_ids=frozenset([STOP]),
            windows=tuple(group.window for group in states),
            breakers=lambda texts: mask_of([5, 60], VOCAB),
        )
        engine = Engine(executor, facts)
        try:
            yield engine
        finally:
            engine.stop()


def run(engine: Engine, requests: list[Asked], *, speculation: str) -> None:
    for number, request in enumerate(requests):
        request.submit(engine, speculation=speculation)
        if number % 5 == 0:  # they arrive one after another, some while others run
            engine.step()
    while engine.step():
        pass
    stats = engine.stats()
    assert stats.running == stats.waiting == 0
    assert stats.blocks_free == stats.blocks


def test_a_thousand_requests_give_the_same_with_and_without(
    tiny_program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    requests = [asked(seed) for seed in range(1000)]
    path = tiny_program("8da8w")
    with engine_on(path, blocks=40) as engine:
        run(engine, requests, speculation="off")
        expected = [request.outcome() for request in requests]
    with engine_on(path, blocks=9) as engine:
        run(engine, requests, speculation="ngram")
        assert engine.stats().preemptions > 0
    stats = [event.stats for r in requests for event in r.events if isinstance(event, FinishEvent)]
    assert sum(item.accepted_tokens for item in stats) > 2000
    assert sum(item.drafted_tokens > item.accepted_tokens for item in stats) > 100
    assert sum(item.cached_tokens > 0 for item in stats) > 100
    for request, outcome in zip(requests, expected, strict=True):
        assert request.outcome() == outcome


@pytest.mark.parametrize(
    "family", ["llama", "qwen3_5_text", "gemma3_text", "lfm2", "granitemoehybrid"]
)
def test_auto_gives_the_same_where_it_drafts_whatever_it_can(
    tiny_program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    source = random.Random(family)
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    monkeypatch.setattr(
        Payoff, "length", lambda self, chance, most: most and source.randrange(most + 1)
    )
    requests = [asked(seed) for seed in range(1000, 2000)]
    path = tiny_program("8da8w", family=family)
    with engine_on(path, blocks=40) as engine:
        run(engine, requests, speculation="off")
        expected = [request.outcome() for request in requests]
    with engine_on(path, blocks=7) as engine:
        run(engine, requests, speculation="auto")
        assert engine.stats().preemptions > 0
    stats = [event.stats for r in requests for event in r.events if isinstance(event, FinishEvent)]
    assert sum(item.accepted_tokens for item in stats) > 500
    assert sum(item.drafted_tokens > item.accepted_tokens for item in stats) > 30
    for request, outcome in zip(requests, expected, strict=True):
        assert request.outcome() == outcome


def test_a_drafter_of_its_own_beside_processors_is_refused(bench) -> None:
    with pytest.raises(RequestError, match="cannot be had together with speculation"):
        bench().engine.submit(
            [1, 2],
            SamplingParams(),
            print,
            drafter=NgramDrafter(),
            processors=[lambda tokens, logits: logits],
        )


# ---- what goes wrong ends one request ----


class Failing:
    """A constraint and a drafter that fails at one place."""

    def __init__(self, place: str, error: type[BaseException] = RuntimeError) -> None:
        self.place, self.error = place, error

    def fail(self, place: str) -> None:
        if place == self.place:
            raise self.error("a bug")

    @property
    def finished(self) -> bool:
        self.fail("finished")
        return False

    def forced(self) -> list[int]:
        self.fail("forced")
        return []

    def masks(self, path: Sequence[int]) -> list[Mask]:
        self.fail("masks")
        if self.place == "shape":
            return [np.zeros(1, np.uint32)]
        if self.place == "count":
            return []
        return [mask_of(range(97), 97)] * (len(path) + 1)

    def accept(self, *arguments: object) -> None:
        self.fail("accept")

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        self.fail("propose")
        return [1, 2, 3]


@pytest.mark.parametrize("place", ["masks", "accept", "finished", "forced", "shape", "count"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_failing_constraint_ends_its_request(bench, place: str, alone: bool) -> None:
    check_failing(bench, alone, constraint=Failing(place))


@pytest.mark.parametrize("place", ["propose", "accept"])
@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_failing_drafter_ends_its_request(bench, place: str, error: type[BaseException]) -> None:
    check_failing(bench, False, drafter=Failing(place, error))


@pytest.mark.parametrize("kind", [np.array, tuple])
def test_a_draft_is_any_sequence_of_whole_numbers(bench, kind: Callable[[list[int]], Any]) -> None:
    class Guesses:
        def propose(self, tokens: Sequence[int], most: int) -> Any:
            return kind([1, 2, 3])

        def accept(self, drafted: int, accepted: int) -> None:
            assert 0 < drafted <= 3

    busy = bench()
    events: list[Event] = []
    params = SamplingParams(temperature=0.0, max_tokens=20)
    busy.engine.submit([1, 2, 3], params, events.append, drafter=Guesses())
    neighbour, _ = busy.submit([4, 5, 6], 8)
    busy.run()
    ids = [event.id for event in events if isinstance(event, TokenEvent)]
    assert ids == busy.solo([1, 2, 3], 20)
    assert neighbour.ids == busy.solo([4, 5, 6], 8)


def check_failing(bench, alone: bool, **brought: Failing) -> None:
    failing = bench()
    neighbour = None if alone else failing.submit([4, 5, 6], 8)[0]
    events: list[Event] = []
    params = SamplingParams(temperature=0.0, max_tokens=20)
    failing.engine.submit([1, 2, 3], params, events.append, **brought)
    failing.run()
    assert isinstance(events[-1], ErrorEvent)
    assert isinstance(events[-1].error, GenerationError)
    assert "failed" in str(events[-1].error)
    if neighbour is not None:
        assert neighbour.ids == failing.solo([4, 5, 6], 8)


# ---- constraints ----


@pytest.mark.parametrize("speculation", ["off", "ngram"])
def test_an_answer_is_one_of_those_allowed(bench, speculation: str) -> None:
    allowed = [(5, 6, 7, 8), (5, 6, 9), (5,)]
    for seed in range(20):
        held = bench(stop_ids=(96,))
        events: list[Event] = []
        held.engine.submit(
            [5, 6, 7, 8, 5, 6, 7, 8],
            SamplingParams(temperature=2.0, seed=seed, speculation=speculation),
            events.append,
            constraint=AllowedSequences(allowed, end_ids=[96], vocab=97),
        )
        held.run()
        assert isinstance(events[-1], FinishEvent)
        assert events[-1].reason == "stop"
        assert tuple(event.id for event in events if isinstance(event, TokenEvent)) in allowed


def test_masks_end_where_a_path_is_not_allowed() -> None:
    held = AllowedSequences([(1, 2, 3), (1, 4)], end_ids=[9], vocab=40)

    def ids(masks: list[Mask]) -> list[list[int]]:
        bits = [np.unpackbits(mask.view(np.uint8), bitorder="little") for mask in masks]
        return [np.flatnonzero(row).tolist() for row in bits]

    assert ids(held.masks([1, 2, 3])) == [[1], [2, 4], [3]]  # nothing follows the 3
    assert ids(held.masks([1, 3, 3])) == [[1], [2, 4]]
    held.accept([1])
    assert ids(held.masks([4])) == [[2, 4]]
    assert ids(held.masks([])) == [[2, 4]]
    assert not held.finished
    held.accept([4])
    assert held.finished


def ran(held, constraint: Constraint, **params: Any) -> list[Event]:
    """Return the events of one request under ``constraint``, alone on an engine."""
    events: list[Event] = []
    held.engine.submit([5, 6, 7, 8], SamplingParams(**params), events.append, constraint=constraint)
    held.run()
    return events


@pytest.mark.parametrize("speculation", ["off", "ngram"])
@pytest.mark.parametrize("most", [4, 40])
def test_an_answer_ends_where_nothing_can_follow(bench, speculation: str, most: int) -> None:
    held = AllowedSequences([(5, 6, 7, 8)], end_ids=[], vocab=97)
    *tokens, last = ran(bench(), held, max_tokens=most, speculation=speculation)
    assert [token.id for token in tokens if isinstance(token, TokenEvent)] == [5, 6, 7, 8]
    assert isinstance(last, FinishEvent)
    assert last.reason == "stop"


def test_the_empty_answer_is_an_answer(bench) -> None:
    (last,) = ran(bench(), AllowedSequences([()], end_ids=[], vocab=97))
    assert isinstance(last, FinishEvent)
    assert last.reason == "stop"


def test_an_answer_that_is_cut_short_says_so(bench) -> None:
    held = AllowedSequences([(5, 6, 7, 8)], end_ids=[96], vocab=97)
    last = ran(bench(stop_ids=(96,)), held, max_tokens=3)[-1]
    assert isinstance(last, FinishEvent)
    assert last.reason == "length"


def test_what_is_forced_takes_one_step(bench) -> None:
    busy = bench()
    held = AllowedSequences([(5, 6, 7, 8, 9, 1, 2)], end_ids=[], vocab=97)
    events = ran(busy, held, max_tokens=20)
    assert len(busy.executor.batches) == 2  # the prompt with the first token, and the rest
    assert isinstance(events[-1], FinishEvent)
    assert events[-1].stats.accepted_tokens == 5


# ---- drafts ----


def proposed(tokens: list[int], most: int = 4) -> list[int]:
    return list(NgramDrafter().propose(tokens, most))


def test_what_followed_the_longest_match_is_proposed() -> None:
    assert proposed([1, 2, 3, 4, 5, 6, 9, 9, 2, 3]) == [4, 5, 6, 9]
    assert proposed([1, 2, 3, 4, 7, 2, 3, 5, 1, 2, 3], 2) == [4, 7]  # three tokens beat two
    assert proposed([8, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 1) == [5]  # of equal ones the newest
    assert proposed([1, 2, 3, 4]) == []
    assert proposed([1]) == []
    assert proposed([3, 3, 3]) == [3, 3, 3, 3]  # goes on as it began
    assert proposed([1, 2, 3, 1, 2, 3], 4) == [1, 2, 3, 1]


def test_a_long_text_is_looked_at_in_parts() -> None:
    tokens = [*range(20_000), 5, 6, 7]
    drafter = NgramDrafter()
    assert [len(drafter.propose(tokens, 4)) for _ in range(3)] == [0, 0, 4]


def test_one_token_at_a_time_is_as_at_once() -> None:
    source = random.Random(3)
    tokens = source.choices(range(5), k=300)
    grown = NgramDrafter()
    for end in range(2, 300):
        got = list(grown.propose(tokens[:end], 3))
        assert got == proposed(tokens[:end], 3)


def test_drafts_grow_while_they_are_right_and_shrink_when_they_are_not() -> None:
    length = DraftLength()
    first = length.next()
    length.learn(first, first)
    assert length.next() == 2 * first
    for _ in range(4):
        length.learn(length.next(), length.next())
    assert length.next() == MOST_TOKENS
    length.learn(MOST_TOKENS, 2)
    assert length.next() == 3
    for _ in range(6):
        while (count := length.next()) == 0:
            pass
        length.learn(count, 0)
    assert [length.next() for _ in range(4)] == [0, 0, 0, 1]
