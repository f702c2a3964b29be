"""Which calls the function calling leaderboard's rules take, and which they do not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_llm.errors import RequestError
from edge_llm.parsed import ToolCall
from edge_llm.runner.evaluation.tasks.bfcl import Case, json_schema_of, judge, read_cases

FUNCTION = {
    "name": "geometry.area",
    "description": "the area of a shape",
    "parameters": {
        "type": "dict",
        "properties": {
            "shape": {"type": "string"},
            "side": {"type": "integer"},
            "scale": {"type": "float"},
            "filled": {"type": "boolean"},
            "corners": {"type": "tuple", "items": {"type": "float"}},
            "style": {"type": "dict", "properties": {"colour": {"type": "string"}}},
        },
        "required": ["shape", "side"],
    },
}
ANSWER = {
    "shape": ["New York, square"],
    "side": [3],
    "scale": [1.0, ""],
    "filled": [True, ""],
    "corners": [[0.0, 1.5], ""],
    "style": [{"colour": ["red", "dark red"], "width": [2, ""]}, ""],
}
RIGHT = {"shape": "new york square", "side": 3}


def case(tmp_path: Path, truth: Sequence[Mapping[str, Any]] = ({"geometry.area": ANSWER},)) -> Case:
    name = "BFCL_v4_parallel.json"
    question = {
        "id": "parallel_0",
        "question": [[{"role": "user", "content": "the area, please"}]],
        "function": [FUNCTION, {**FUNCTION, "name": "volume"}],
    }
    (tmp_path / "possible_answer").mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(question))
    answer = {"id": "parallel_0", "ground_truth": list(truth)}
    (tmp_path / "possible_answer" / name).write_text(json.dumps(answer))
    [found] = read_cases(tmp_path / name)
    return found


def call(arguments: object, name: str = "geometry_area") -> ToolCall:
    return ToolCall(name, arguments if isinstance(arguments, str) else json.dumps(arguments))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"scale": 1.0},
        {"scale": 1},  # an integer does for a float
        {"filled": True, "corners": [0, 1.5]},
        {"style": {"colour": "Dark-Red"}},
        {"style": {"colour": "red", "width": 2}},
        {"shape": "NEW YORK, SQUARE"},
    ],
)
def test_right_arguments(tmp_path: Path, more: dict[str, Any]) -> None:
    result = judge(case(tmp_path), [call(RIGHT | more)])
    assert (result.correct, result.reason, result.share) == (True, "", 1.0)


@pytest.mark.parametrize(
    ("arguments", "reason", "share"),
    [
        (RIGHT | {"side": 4}, "side is 4, expected [3]", 5 / 6),
        (RIGHT | {"side": 3.0}, "side is 3.0", 5 / 6),
        (RIGHT | {"side": "3"}, 'side is "3"', 5 / 6),
        (RIGHT | {"side": None}, "side is null", 5 / 6),
        ({"shape": "new york square"}, "side is missing", 5 / 6),
        (RIGHT | {"colour": "red"}, "colour is not expected", 1.0),
        (RIGHT | {"filled": 1}, "filled is 1", 5 / 6),
        (RIGHT | {"filled": "True"}, "filled is", 5 / 6),
        (RIGHT | {"scale": True}, "scale is true", 5 / 6),
        (RIGHT | {"corners": [1.5, 0.0]}, "corners is", 5 / 6),
        (RIGHT | {"corners": [0.0]}, "corners is", 5 / 6),
        (RIGHT | {"corners": "0.0, 1.5"}, "corners is", 5 / 6),
        (RIGHT | {"style": {"colour": "blue"}}, "style is", 5 / 6),
        (RIGHT | {"style": {}}, "style is", 5 / 6),
        (RIGHT | {"style": {"colour": "red", "more": 1}}, "style is", 5 / 6),
        ({"side": 4}, "shape is missing, side is 4", 4 / 6),
        ("[]", "are no object", 0.0),
        ("{", "are no JSON", 0.0),
        ("[" * 100_000, "are no JSON", 0.0),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: object, reason: str, share: float) -> None:
    result = judge(case(tmp_path), [call(arguments)])
    assert not result.correct
    assert reason in result.reason
    assert result.share == pytest.approx(share)


def test_a_call_of_another_function(tmp_path: Path) -> None:
    result = judge(case(tmp_path), [call(RIGHT, "volume")])
    assert not result.correct
    assert "volume is called, expected geometry_area" in result.reason
    assert "geometry_area is not called" in result.reason
    assert result.share == 0


def test_no_call(tmp_path: Path) -> None:
    result = judge(case(tmp_path), [], "The area is 9.")
    assert (result.correct, result.answer) == (False, "The area is 9.")
    assert result.reason == "geometry_area is not called"


def test_one_call_too_many(tmp_path: Path) -> None:
    result = judge(case(tmp_path), [call(RIGHT), call(RIGHT)])
    assert not result.correct
    assert "nobody asked for" in result.reason


def test_calls_in_any_order(tmp_path: Path) -> None:
    truth = [{"geometry.area": {**ANSWER, "side": [side]}} for side in (1, 2)]
    item = case(tmp_path, [*truth, {"volume": ANSWER}])
    calls = [call(RIGHT | {"side": 2}), call(RIGHT, "volume"), call(RIGHT | {"side": 1})]
    assert judge(item, calls).correct
    assert not judge(item, calls[:2]).correct
    assert not judge(item, [calls[0], calls[1], calls[0]]).correct


def test_a_variable_for_a_value(tmp_path: Path) -> None:
    item = case(tmp_path, [{"geometry.area": {**ANSWER, "side": ["width"]}}])
    assert judge(item, [call(RIGHT | {"side": "width"})]).correct
    assert not judge(item, [call(RIGHT | {"side": 3})]).correct


def test_where_nothing_is_to_be_called(tmp_path: Path) -> None:
    case(tmp_path)
    path = tmp_path / "BFCL_v4_irrelevance.json"
    (tmp_path / "BFCL_v4_parallel.json").rename(path)
    [item] = read_cases(path)
    assert judge(item, [], "No function does that.").correct
    result = judge(item, [call(RIGHT)])
    assert (result.correct, result.share) == (False, None)


def test_types() -> None:
    schema: Any = json_schema_of(FUNCTION["parameters"])
    kinds = {name: each["type"] for name, each in schema["properties"].items()}
    assert schema["type"] == "object"
    assert kinds == {
        "shape": "string",
        "side": "integer",
        "scale": "number",
        "filled": "boolean",
        "corners": "array",
        "style": "object",
    }
    assert schema["properties"]["corners"]["items"] == {"type": "number"}
    named = {"type": "dict", "properties": {"type": {"type": "tuple"}}}
    assert json_schema_of(named)["properties"]["type"] == {"type": "array"}


@pytest.mark.parametrize(
    ("name", "question", "answer", "message"),
    [
        ("BFCL_v4_simple_java.json", {}, {}, "has cases of simple_java"),
        ("BFCL_v4_simple.json", {"id": 3}, {}, "id of an object"),
        ("BFCL_v4_simple.json", {"question": [[], []]}, {}, "has 2 turns"),
        ("BFCL_v4_simple.json", {"function": ["f"]}, {}, "a function in"),
        ("BFCL_v4_simple.json", {"id": "other"}, {}, "no accepted answer to other"),
        ("BFCL_v4_simple.json", {}, {"ground_truth": [{"f": {"a": 1}}]}, "lists of accepted"),
        ("BFCL_v4_simple.json", {}, {"ground_truth": [{}]}, "no call of one function"),
        (
            "BFCL_v4_simple.json",
            {"function": [{**FUNCTION, "parameters": {"properties": 1}}]},
            {},
            "no schema of an object",
        ),
    ],
)
def test_files_that_are_none(
    tmp_path: Path, name: str, question: dict[str, Any], answer: dict[str, Any], message: str
) -> None:
    case(tmp_path)
    for folder, changes in ((tmp_path, question), (tmp_path / "possible_answer", answer)):
        document = json.loads((folder / "BFCL_v4_parallel.json").read_text()) | changes
        (folder / name).write_text(json.dumps(document))
    with pytest.raises(RequestError, match=message):
        read_cases(tmp_path / name)


def test_a_file_without_answers(tmp_path: Path) -> None:
    case(tmp_path)
    (tmp_path / "possible_answer" / "BFCL_v4_parallel.json").unlink()
    with pytest.raises(RequestError, match="possible_answer"):
        read_cases(tmp_path / "BFCL_v4_parallel.json")
