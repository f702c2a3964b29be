"""Grammars as constraints: what is sampled under them at random is what they say, drafts change
nothing, and what cannot be enforced is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edge_llm.errors import GenerationError, RequestError
from edge_llm.runner.engine.constraints import Constraint, Mask
from edge_llm.runner.engine.events import FinishEvent, TokenEvent
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.guidance.vocabulary import Vocabulary
from edge_llm.runner.sampling import SamplingParams

END, TOOL, SIZE = 80, 81, 97  # a vocabulary as small as the toy executor's
LETTERS = [bytes([code]) for code in (*range(32, 96), *b"{}")]
WORDS = [b'{"', b'":', b'","', b'"}', b"AB", b"ABC", b"\xc3", b"\xa9", b'"NAME', b"  "]
TOKENS = [*LETTERS, *WORDS]
TOKENS += [b"" for _ in range(END - len(TOKENS))] + [b"<end>", b"<tool>"]


def encode(data: bytes) -> list[int]:
    """Return the fewest characters first, as a model that knows only letters would write."""
    return [TOKENS.index(bytes([code])) for code in data]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(TOKENS, [TOOL], [END], encode, SIZE)


@pytest.fixture(scope="module")
def guide(vocabulary: Vocabulary) -> Guide:
    return Guide(lambda: vocabulary)


def ids_of(mask: Mask) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def text_of(ids: Sequence[int]) -> bytes:
    return b"".join(TOKENS[token] for token in ids)


def walk(constraint: Constraint, seed: int, most: int = 200) -> list[int]:
    """Return tokens that were chosen at random of those allowed, up to an end id."""
    source = np.random.default_rng(seed)
    chosen: list[int] = []
    while not constraint.finished and len(chosen) < most:
        token = int(source.choice(ids_of(constraint.masks([])[0])))
        if token == END:
            break
        constraint.accept([token])
        chosen.append(token)
    return chosen


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar.regex(r"[A-C]{2,5}=\d+/X"), rb"[A-C]{2,5}=[0-9]+/X"),
        (Grammar.regex(r"^YES|NO$"), rb"YES|NO"),
        (Grammar.choice(["A", "AB", 'B"C', "/#"]), rb'A|AB|B"C|/#'),
        (Grammar.lark('start: "A" b*\nb: "(" b ")" | "X"'), rb"A[(X)]*"),
        (Grammar.gbnf('root ::= "A" [0-9]+ ("," [0-9]+)*'), rb"A[0-9]+(,[0-9]+)*"),
        (Grammar.lark_or_gbnf('root ::= "A"'), rb"A"),
        (Grammar.lark_or_gbnf('start: "A"'), rb"A"),
    ],
)
def test_an_answer_is_what_its_grammar_says(guide: Guide, grammar: Grammar, pattern: bytes) -> None:
    guide.check(grammar, "grammar")
    for seed in range(20):
        ids = walk(guide.constraint(grammar), seed)
        if len(ids) < 200:
            assert re.fullmatch(pattern, text_of(ids))


def test_padding_and_control_tokens_are_never_allowed(guide: Guide) -> None:
    mask = guide.constraint(Grammar.regex("(?s:.*)")).masks([])[0]
    assert set(ids_of(mask)).isdisjoint({TOOL, *range(len(TOKENS), 128)})
    assert END in ids_of(mask)
    named = guide.constraint(Grammar.lark(f'start: <[{TOOL}]> "A"'))
    assert ids_of(named.masks([])[0]) == [TOOL]


def test_an_answer_ends_exactly_where_the_grammar_does(guide: Guide) -> None:
    held = guide.constraint(Grammar.regex("A{1,2}"))
    a = TOKENS.index(b"A")
    assert END not in ids_of(held.masks([])[0])
    held.accept([a])
    assert ids_of(held.masks([])[0]) == [a, END]
    assert not held.finished
    held.accept([a])
    assert held.finished


def test_without_an_end_id_an_answer_ends_where_nothing_can_follow() -> None:
    guide = Guide(lambda: Vocabulary(TOKENS, [TOOL], [], encode, SIZE))
    held = guide.constraint(Grammar.choice(["AB"]))
    for letter in (b"A", b"B"):
        assert not held.finished
        assert max(ids_of(held.masks([])[0])) < len(TOKENS)
        held.accept([TOKENS.index(letter)])
    assert held.finished


def test_masks_along_a_path_are_those_of_its_steps(guide: Guide) -> None:
    grammar = Grammar.json_schema(
        {"type": "object", "properties": {"NAME": {"enum": ["AB", "AC"]}, "B": {"const": 12}}}
    )
    source = np.random.default_rng(3)
    for seed in range(50):
        path = walk(guide.constraint(grammar), seed)
        held, stepped = guide.constraint(grammar), guide.constraint(grammar)
        start = int(source.integers(len(path)))
        held.accept(path[:start])
        stepped.accept(path[:start])
        masks = held.masks([*path[start:], 1])
        for mask, token in zip(masks, path[start:], strict=False):
            assert ids_of(mask) == ids_of(stepped.masks([])[0])
            stepped.accept([token])
        assert len(masks) >= len(path) - start
        assert ids_of(held.masks([])[0]) == ids_of(masks[0])  # it has gone back
        held.accept(path[start:])
        assert held.finished == stepped.finished


def test_a_path_ends_before_what_is_not_allowed(guide: Guide) -> None:
    a, b = TOKENS.index(b"A"), TOKENS.index(b"B")
    held = guide.constraint(Grammar.choice(["ABA", "AA"]))
    assert len(held.masks([a, b, b])) == 3
    assert len(held.masks([b])) == 1
    assert len(held.masks([a, a])) == 2  # nothing follows the last
    assert len(held.masks([a, END])) == 2


@pytest.mark.parametrize("speculation", ["off", "ngram", "auto"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_change_nothing(
    bench, guide: Guide, speculation: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammar = Grammar.json_schema(
        {
            "type": "object",
            "properties": {"NAME": {"type": "string", "maxLength": 4}, "A LONG KEY": {"const": 12}},
            "required": ["NAME", "A LONG KEY"],
        }
    )

    def answers(speculation: str) -> tuple[list[Any], int]:
        heard: list[list[Any]] = [[] for _ in range(12)]
        busy = bench(stop_ids=(END,), pages=200)
        for seed, events in enumerate(heard):  # as n answers of one request
            params = SamplingParams(
                temperature=temperature, seed=seed, max_tokens=60, speculation=speculation
            )
            held = guide.constraint(grammar)
            busy.engine.submit([5, 6, 7, 5, 6, 7], params, events.append, constraint=held)
        busy.run()
        accepted = sum(events[-1].stats.accepted_tokens for events in heard)
        return [
            ([e.id for e in events if isinstance(e, TokenEvent)], events[-1].reason)
            for events in heard
            if isinstance(events[-1], FinishEvent)
        ], accepted

    drafted, accepted = answers(speculation)
    assert accepted > 60
    monkeypatch.setattr(
        "edge_llm.runner.guidance.matcher.GrammarConstraint.forced", lambda self: ()
    )
    alone, none = answers("off")
    assert none == 0
    assert drafted == alone
    for ids, reason in drafted:
        assert reason == "stop"
        assert json.loads(text_of(ids))["A LONG KEY"] == 12


def test_ignore_eos_does_not_go_on_behind_a_grammar(bench, guide: Guide) -> None:
    events: list[Any] = []
    params = SamplingParams(max_tokens=50, ignore_eos=True, seed=1)
    busy = bench(stop_ids=(END,))
    held = guide.constraint(Grammar.regex("A{1,9}"))
    busy.engine.submit([1, 2], params, events.append, constraint=held)
    busy.run()
    assert events[-1].reason == "stop"


def test_what_cannot_go_on_ends_its_request(guide: Guide) -> None:
    held = guide.constraint(Grammar.regex("AB"))
    with pytest.raises(GenerationError, match="grammar"):
        held.accept([TOKENS.index(b"Z")])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Grammar.regex("(?=A)B", param="p"), "look-around"),
        (lambda: Grammar.regex("A(", param="p"), "unclosed group"),
        (lambda: Grammar.regex("", param="p"), "empty"),
        (lambda: Grammar.regex("[y-z]", param="p"), "no token"),
        (lambda: Grammar.choice([], param="p"), "choices"),
        (lambda: Grammar.choice(["A", 3], param="p"), "choices"),
        (lambda: Grammar.lark("start: nothing", param="p"), "unknown name"),
        (lambda: Grammar.lark("start: start", param="p"), "grammar"),
        (lambda: Grammar.lark('start: "A"\n' * 3000, param="p"), "lines"),
        (lambda: Grammar.lark("start: %json {", param="p"), "JSON"),
        (lambda: Grammar.lark("start: " + "(" * 99_999, param="p"), "nested"),
        (lambda: Grammar.lark('start: %json {"not": {}}', param="p"), "'not'"),
        (lambda: Grammar.gbnf("root := x", param="p"), "GBNF"),
        (lambda: Grammar.gbnf("root ::= " + "(" * 9999, param="p"), "GBNF"),
        (lambda: Grammar.regex("A" * 2_000_000, param="p"), "bytes"),
        (lambda: Grammar.regex("((A{1000}){1000}){1000}", param="p"), "no choice"),
        (lambda: Grammar.regex("\ud800", param="p"), "Unicode"),
    ],
)
def test_what_is_no_grammar_is_refused(guide: Guide, make: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        guide.check(make(), "p")
    assert caught.value.param == "p"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda word: Grammar.lark(f"start: {word}", param="p"), 'unknown name: "WORD"'),
        (lambda word: Grammar.lark(f'start: "a" @{word}', param="p"), "unknown grammar @WORD"),
        (
            lambda word: Grammar.lark(f'%import common.{word}X\nstart: "a"', param="p"),
            "Unknown common regex: common.WORDX",
        ),
        (
            lambda word: Grammar.lark(f"start: <{word}>", param="p"),
            'unknown special token: "<WORD>"',
        ),
        (lambda word: Grammar.gbnf(f"root ::= {word}", param="p"), "Rule 'WORD' not found"),
        (lambda word: Grammar.gbnf(f'{word} ::= "a"', param="p"), "No 'root' rule found"),
        (lambda word: Grammar.gbnf(f'root ::= "{word}', param="p"), "end of input at line 1"),
        (
            lambda word: Grammar.json_schema({"properties": {"a": {"type": word}}}, param="p"),
            "schema's 'type' at /properties/a is 'WORD', expected one of: string,",
        ),
        (lambda word: Grammar.json_schema({"format": word}, param="p"), "Unknown format: WORD"),
        (lambda word: Grammar.json_schema({"minimum": word}, param="p"), "'minimum', got \"WORD\""),
        (
            lambda word: Grammar.json_schema({"$ref": f"#/{word}"}, param="p"),
            "Pointer '/WORD' does not exist",
        ),
        (lambda word: Grammar.json_schema({"$schema": word}, param="p"), "schema"),
        (
            lambda word: Grammar.json_schema({"properties": {word: {"not": {}}}}, param="p"),
            "'not' at /properties/WORD cannot",
        ),
        (lambda word: Grammar.regex(f"{word}((", param="p"), "invalid regex: unclosed group"),
    ],
)
def test_reasons_repeat_a_few_words_at_most(guide: Guide, make: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        guide.check(make("WORD"), "p")
    assert said in str(caught.value)
    with pytest.raises(RequestError) as caught:
        guide.check(make("WORD" * 999), "p")
    assert str(caught.value).count("WORD") <= 25
    assert len(str(caught.value)) < 300


def test_a_client_cannot_switch_enforcement_off(guide: Guide) -> None:
    options = '"x-guidance": {"lenient": true, "whitespace_flexible": true}'
    for text in (
        'start: %json {"type": "null", OPTIONS}',
        '// a "comment"\nstart: x // "\nx: %json {"type": "null", OPTIONS}',
        'start: /["]?/ x # "\nx: %json {"type": "null", OPTIONS}',
    ):
        assert 'lenient": true' not in Grammar.lark(text.replace("OPTIONS", options)).text
    with pytest.raises(RequestError, match="'uniqueItems'"):
        Grammar.json_schema({"x-guidance": {"lenient": True}, "uniqueItems": True})


def test_known_grammars_are_compiled_once_and_forgotten_in_time(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_llm.runner.guidance import guide as module

    compiled: list[Grammar] = []
    original = module._compiled

    def counted(vocabulary: Vocabulary, grammar: Grammar, param: str | None) -> Any:
        compiled.append(grammar)
        return original(vocabulary, grammar, param)

    monkeypatch.setattr(module, "_compiled", counted)
    guide = Guide(lambda: vocabulary, kept=2)
    one, two, three = (Grammar.choice([text]) for text in ("A", "B", "C"))
    for grammar in (one, two, one, three, one, two):
        guide.check(grammar, None)
    assert compiled == [one, two, three, two]
