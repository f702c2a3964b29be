"""Items of tasks put to a model that says what a script has it say, and to a random one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import edge_llm
from edge_llm.api import tasks
from edge_llm.errors import ContextLengthError, GenerationError, RequestError
from edge_llm.parsed import Tool, ToolCall
from edge_llm.runner.evaluation.tasks.bfcl import Case, Expected
from edge_llm.runner.evaluation.tasks.choices import Question, prompt_of
from edge_llm.runner.evaluation.tasks.humaneval import STOPS, Problem
from edge_llm.runner.evaluation.tasks.results import Result

TRIPLE = Problem(
    "Toy/0",
    "def triple(x):\n",
    "triple",
    "def check(candidate):\n    assert candidate(2) == 6\n",
)
AREA = Case(
    "simple_0",
    "simple",
    [{"role": "user", "content": "The area?"}],
    [Tool("area", None, {"type": "object", "properties": {"side": {"type": "integer"}}})],
    [Expected("area", {"side": [3]})],
)


class Scripted:
    """Answers with what it was given, and keeps what it was asked."""

    context = 1000

    def __init__(self, answer: str = "", calls: tuple[ToolCall, ...] = ()) -> None:
        self.said = SimpleNamespace(text=answer, tool_calls=calls)
        self.asked: list[tuple[Any, Any, dict[str, Any]]] = []
        self.error: Exception | None = None
        self.closed = threading.Event()

    def chat(self, messages: Any, params: Any, **options: Any) -> Any:
        self.asked.append((messages, params, options))
        if self.error is not None:
            raise self.error
        return self.said

    generate = chat

    def close(self) -> None:
        self.closed.set()


def results(model: Any, items: list[tasks.Item]) -> list[Result]:
    found: list[Result] = []
    tasks.run_items(model, items, found.append)
    return found


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        ("```python\ndef triple(x):\n    return 3 * x\n```", True),
        ("```python\ndef triple(x):\n    return 2 * x\n```", False),
    ],
)
def test_code_in_a_chat(answer: str, correct: bool) -> None:
    model = Scripted(answer)
    [result] = results(model, tasks.code_items([TRIPLE], max_tokens=7, chat=True))
    assert result.correct == correct
    [(messages, params, _)] = model.asked
    assert "def triple(x):" in messages[0]["content"]
    assert (params.temperature, params.max_tokens) == (0.0, 7)


def test_code_that_goes_on_with_the_text() -> None:
    model = Scripted("    return 3 * x\n")
    [result] = results(model, tasks.code_items([TRIPLE], max_tokens=7, chat=False))
    assert result.correct
    [(prompt, params, _)] = model.asked
    assert prompt == TRIPLE.prompt
    assert tuple(params.stop) == STOPS


@pytest.mark.parametrize(("side", "correct"), [(3, True), (4, False)])
@pytest.mark.parametrize("required", [True, False])
def test_calls(side: int, correct: bool, required: bool) -> None:
    model = Scripted(calls=(ToolCall("area", f'{{"side": {side}}}'),))
    [result] = results(model, tasks.call_items([AREA], max_tokens=7, required=required))
    assert result.correct == correct
    [(messages, params, options)] = model.asked
    assert (messages, params.temperature) == (AREA.messages, 0.0)
    assert options["tools"] == AREA.tools
    assert options["tool_choice"] == ("required" if required else "auto")
    assert options["parallel_tool_calls"] is False


def test_all_are_asked_of_an_adapter() -> None:
    model: Any = Scripted("    return 3 * x\n")
    items = [
        *tasks.code_items([TRIPLE], max_tokens=7, chat=True),
        *tasks.code_items([TRIPLE], max_tokens=7, chat=False),
        *tasks.call_items([AREA], max_tokens=7, required=True),
    ]
    tasks.run_items(model, items, lambda result: None, adapter="mine")
    assert [options["adapter"] for _, _, options in model.asked] == ["mine"] * 3


def test_what_the_model_cannot_be_asked_is_wrong() -> None:
    model = Scripted()
    model.error = RequestError("no grammar can be made of this")
    [result] = results(model, tasks.call_items([AREA], max_tokens=7, required=True))
    assert (result.correct, result.reason) == (False, "refused: no grammar can be made of this")
    model.error = ContextLengthError(10, 20)
    for chat in (True, False):
        [result] = results(model, tasks.code_items([TRIPLE], max_tokens=7, chat=chat))
        assert not result.correct
        assert "maximum context length" in result.reason


def test_a_failure_ends_the_others() -> None:
    model = Scripted()
    model.error = GenerationError("broken")
    items = tasks.call_items([AREA], max_tokens=7, required=True)

    def waits(_: Any, adapter: str | None) -> Result:
        model.closed.wait()
        raise GenerationError("closed")

    with pytest.raises(GenerationError, match="broken"):
        results(model, [tasks.Item("waits", waits), *items])
    assert model.closed.is_set()


@pytest.fixture(scope="module")
def tiny(tiny_program: Callable[..., Path]) -> Path:
    return tiny_program("fp32")


def test_choices_against_logits(tiny: Path) -> None:
    questions = [
        Question(str(number), "s", f"{number} + {number}?", ("1", "2", "3", "4"), number % 4)
        for number in range(8)
    ]
    items = tasks.choice_items(questions, range(8), examples=0)
    with edge_llm.load(tiny, threads=1) as llm:
        found = {result.id: result for result in results(llm, items)}
        chosen = []
        for question in questions:
            prompt = prompt_of(question, [])
            encode = llm.tokenizer.encode
            letters = [encode(f"{prompt} {letter}")[len(encode(prompt)) :] for letter in "ABCD"]
            scores = []
            for letter in letters:
                logits = llm.logits([*encode(prompt), *letter]).astype(np.float64)
                rows = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[:-1]
                scores.append(
                    sum(row[t] for row, t in zip(rows[-len(letter) :], letter, strict=True))
                )
            chosen.append(int(np.argmax(scores)))
            assert found[question.id].correct == (chosen[-1] == question.answer)
    assert len({result.correct for result in found.values()}) == 2  # both happen


def test_examples_give_way_to_the_question(tiny: Path) -> None:
    questions = [Question(str(n), "s", "why? " * 8, ("yes", "no"), 0) for n in range(5)]
    with edge_llm.load(tiny, threads=1) as llm:
        size = len(llm.tokenizer.encode(prompt_of(questions[0], questions[1:2])))
    with edge_llm.load(tiny, threads=1, context=size + 1) as llm:
        [with_four] = results(llm, tasks.choice_items(questions, [0], examples=4))
        [with_one] = results(llm, tasks.choice_items(questions, [0], examples=1))
        [with_none] = results(llm, tasks.choice_items(questions, [0], examples=0))
    assert with_four == with_one != with_none
    with (
        edge_llm.load(tiny, threads=1, context=16) as llm,
        pytest.raises(ContextLengthError, match="question"),
    ):
        results(llm, tasks.choice_items(questions, [0], examples=4))
