"""Questions with choices: files, prompts, and which choice counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_llm.errors import RequestError
from edge_llm.runner.evaluation.tasks.choices import (
    Question,
    examples_for,
    judge,
    prompt_of,
    read_questions,
)

QUESTION = Question("q", "world_facts", "Which is a colour?", ("red", "two", "run"), 0)


def test_a_prompt() -> None:
    example = Question("e", "world_facts", "Which is a number?", ("red", "two"), 1)
    assert prompt_of(QUESTION, [example]) == (
        "The following are multiple choice questions (with answers) about world facts.\n\n"
        "Which is a number?\nA. red\nB. two\nAnswer: B\n\n"
        "Which is a colour?\nA. red\nB. two\nC. run\nAnswer:"
    )


def test_the_highest_score_counts() -> None:
    assert judge(QUESTION, [-1.0, -2.0, -3.0]).correct
    result = judge(QUESTION, [-2.0, -1.0, -3.0])
    assert (result.correct, result.reason) == (False, "B is likelier than A")
    assert judge(QUESTION, [-1.0, -1.0, -1.0]).correct  # the first of equals


def test_examples_are_of_the_subject_and_other_questions() -> None:
    questions = [Question(str(n), "ab"[n % 2], f"{n}?", ("x", "y"), 0) for n in range(8)]
    assert [each.id for each in examples_for(questions, 4, 2)] == ["0", "2"]
    assert [each.id for each in examples_for(questions, 0, 9)] == ["2", "4", "6"]
    assert examples_for(questions, 0, 0) == []


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows: list[dict[str, Any]] = [
        {"question": "one?", "choices": ["a", "b"], "answer": 1},
        {"question": "two?", "choices": ["a", "b", "c", "d", "e"], "answer": "E", "subject": "s"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    first, second = read_questions(path)
    assert (first.subject, first.answer, list(first.choices)) == ("mine", 1, ["a", "b"])
    assert (second.subject, second.answer) == ("s", 4)


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "anatomy_test.csv").write_text('"Which, then?",a,b,"c, d",e,C\n')
    (tmp_path / "law_test.csv").write_text("Who?,a,b,c,d,A\n\n")
    (tmp_path / "README").write_text("not one")
    anatomy, law = read_questions(tmp_path)
    assert (anatomy.subject, anatomy.question, anatomy.answer) == ("anatomy", "Which, then?", 2)
    assert anatomy.choices[2] == "c, d"
    assert (law.subject, law.answer) == ("law", 0)


def test_examples_of_the_harness(tmp_path: Path) -> None:
    text = (
        "Questions about sums.\n\nQ: What is 1 + 1?\n(A) 1 (B) 2 (C) 3 (D) 4\n"
        "A: Let's think. It is not (A). The answer is (B).\n\nQ: Which?\n(A) x\n(B) y\n"
        "A: So it is (A).\n\nQ: Without choices\nA: nothing.\n\n"
        "Q: Skips\n(A) x (C) y\nA: The answer is (A)."
    )
    path = tmp_path / "examples.json"
    path.write_text(json.dumps({"sums": text}))
    first, second = read_questions(path)
    assert (first.question, list(first.choices), first.answer) == (
        "What is 1 + 1?",
        ["1", "2", "3", "4"],
        1,
    )
    assert (second.question, list(second.choices), second.answer) == ("Which?", ["x", "y"], 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.txt", "", "is no file of questions"),
        ("q.json", "[]", "no object with a text for each subject"),
        ("q.json", "{", "is no JSON"),
        ("q.json", "{}", "has no questions"),
        ("q.csv", "one,two\n", "row 1 of .* has 2 cells"),
        ("q.csv", "q,a,b,c,d,E\n", "is none of its choices"),
        ("q.jsonl", '{"question": "q", "choices": ["a"], "answer": 0}', "has no 2 to 10 choices"),
        ("q.jsonl", '{"question": "q", "choices": ["a", 1], "answer": 0}', "choices that are"),
        ("q.jsonl", '{"question": "q", "choices": ["a", "b"], "answer": 2}', "none of its"),
        ("q.jsonl", '{"question": "q", "choices": ["a", "b"], "answer": true}', "none of its"),
        ("q.jsonl", '{"question": "q", "choices": ["a", "b"]}', "none of its choices"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(RequestError, match=message):
        read_questions(path)
