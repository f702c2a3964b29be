"""Problems of HumanEval, and answers that a model might give."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from edge_llm.errors import RequestError
from edge_llm.runner.evaluation.tasks.humaneval import (
    Problem,
    code_of,
    instruction,
    judge,
    program_of,
    read_problems,
)

PROBLEM = Problem(
    id="Toy/0",
    prompt="from typing import List\n\ndef half(x: int) -> int:\n    return x // 2\n\n"
    'def quarters(xs: List[int]) -> List[int]:\n    """Use half() twice."""\n',
    entry_point="quarters",
    test="def check(candidate):\n    assert candidate([8, 12]) == [2, 3]\n",
)
BODY = "    return [half(half(x)) for x in xs]\n"
WHOLE = f"def quarters(xs: List[int]) -> List[int]:\n{BODY}"


def document(**changes: Any) -> dict[str, Any]:
    fields = {
        "task_id": PROBLEM.id,
        "prompt": PROBLEM.prompt,
        "entry_point": PROBLEM.entry_point,
        "test": PROBLEM.test,
    }
    return fields | changes


@pytest.mark.parametrize(
    "answer",
    [
        f"Here it is:\n```python\n{WHOLE}```\nIt halves twice.",
        f"```python\nimport math\n```\nand\n```py\n{WHOLE}\n```",
        f"```\n{WHOLE}",  # cut before the block was closed
        WHOLE,
        f"```python\nimport os\n\n{WHOLE}```",
    ],
)
def test_right_answers(answer: str) -> None:
    result = judge(PROBLEM, answer, code_of(PROBLEM, answer))
    assert (result.correct, result.reason) == (True, "")
    assert result.answer == answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("```python\ndef quarters(xs):\n    return xs\n```", "AssertionError"),
        ("I cannot do that.", "SyntaxError"),
        ("```python\ndef quarters(xs):\n    raise SystemExit(0)\n```", "SystemExit"),
        ("```python\nimport os\ndef quarters(xs):\n    os._exit(0)\n```", "ended early"),
    ],
)
def test_wrong_answers(answer: str, reason: str) -> None:
    result = judge(PROBLEM, answer, code_of(PROBLEM, answer))
    assert not result.correct
    assert reason in result.reason


def test_what_goes_on_with_the_prompt() -> None:
    assert judge(PROBLEM, BODY, BODY).correct
    assert not judge(PROBLEM, "    return xs\n", "    return xs\n").correct


def test_a_function_of_a_longer_name_is_another_one() -> None:
    assert PROBLEM.prompt + "def quarters_of(x): pass" in program_of(
        PROBLEM, "def quarters_of(x): pass"
    )


def test_the_instruction_has_the_prompt() -> None:
    assert PROBLEM.prompt.strip() in instruction(PROBLEM)


def test_files(tmp_path: Path) -> None:
    plain, packed = tmp_path / "problems.jsonl", tmp_path / "problems.jsonl.gz"
    plain.write_text(json.dumps(document()) + "\n\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_problems(plain) == read_problems(packed) == [PROBLEM]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no problems"),
        (b"[1]\n", "line 1 of .* is no JSON object"),
        (b"{\n", "line 1 of .* is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"\xff\n", "cannot read"),
        (json.dumps(document(prompt=3)).encode(), "prompt of an object in .* is of type int"),
        (json.dumps(document(entry_point="a; b")).encode(), "is no name"),
        (json.dumps(document()).encode() + b"\n" + json.dumps(document()).encode(), "two items"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=message):
        read_problems(path)


def test_a_packed_file_that_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(document()).encode())[:-9])
    with pytest.raises(RequestError, match="cannot read"):
        read_problems(path)
    with pytest.raises(RequestError, match="cannot read"):
        read_problems(tmp_path / "none.jsonl")
