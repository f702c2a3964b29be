"""The Berkeley Function Calling Leaderboard, the cases of one turn: is the right function called,
with arguments that are among those which its authors accept?

The rules are the leaderboard's: strings are compared without case, blanks and the marks
``,./-_*^``; an integer does for a float, not the other way round; an argument may be left out if
its accepted values have an empty text among them; calls may come in any order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_llm.errors import RequestError
from edge_llm.parsed import Tool, ToolCall
from edge_llm.runner.evaluation.tasks.lines import field, objects_of
from edge_llm.runner.evaluation.tasks.results import Result, check_ids

_TYPES = {
    "dict": "object", "hashmap": "object", "float": "number", "double": "number",
    "long": "integer", "tuple": "array", "arraylist": "array", "any": "string", "char": "string",
    "": "string",
}  # fmt: skip
_PYTHON: Mapping[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list,
    "object": dict,
}  # fmt: skip
_UNSAID = re.compile(r"[ ,./\-_*^]")
_PREFIX = re.compile(r"BFCL_v\d+_")


@dataclass(frozen=True, slots=True)
class Expected:
    """A call that is right: its function, and what each argument may be. An empty text among the
    values says that the argument may be left out."""

    name: str
    arguments: Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation, the functions that may be called, and the calls that are right; none where
    nothing is to be called."""

    id: str
    category: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Tool]
    expected: Sequence[Expected]

    @property
    def parallel(self) -> bool:
        """Tell whether the category is one in which several calls at once may be right."""
        return "parallel" in self.category


def read_cases(path: Path) -> list[Case]:
    """Return the cases of ``BFCL_v4_….json``, whose accepted answers are in a file of the same name
    in the folder ``possible_answer`` beside it (none is needed where nothing is to be called).

    Raises:
        RequestError: a file cannot be read, or is not of this form; the cases have several turns,
            or are in the syntax of Java or JavaScript.
    """
    category = _PREFIX.sub("", path.name.partition(".")[0])
    if "java" in category or "multi_turn" in category:
        raise RequestError(
            f"{path.name} has cases of {category}, expected calls of one turn in JSON",
            hint="These are: simple_python, multiple, parallel, irrelevance and their like.",
        )
    answers: dict[str, Any] = {}
    if "irrelevance" not in category:
        beside = path.parent / "possible_answer" / path.name
        answers = {
            field(document, "id", str, beside): field(document, "ground_truth", list, beside)
            for document in objects_of(beside)
        }
    cases = []
    for document in objects_of(path):
        name = field(document, "id", str, path)
        if answers and name not in answers:
            raise RequestError(f"there is no accepted answer to {name[:100]} of {path}")
        turns = field(document, "question", list, path)
        if len(turns) != 1 or not isinstance(turns[0], list):
            raise RequestError(f"{name[:100]} of {path} has {len(turns)} turns, expected one")
        functions = field(document, "function", list, path)
        cases.append(
            Case(
                id=name,
                category=category,
                messages=turns[0],
                tools=[_tool(function, path) for function in functions],
                expected=[_expected(call, path) for call in answers.get(name, ())],
            )
        )
    if not cases:
        raise RequestError(f"{path} has no cases")
    check_ids(case.id for case in cases)
    return cases


def json_schema_of(parameters: Any) -> Any:
    """Return a schema of the leaderboard with the types of JSON Schema, as those who run it do."""
    if isinstance(parameters, list):
        return [json_schema_of(item) for item in parameters]
    if not isinstance(parameters, dict):
        return parameters
    schema: dict[str, Any] = {}
    for key, value in parameters.items():
        if key == "type" and isinstance(value, str):
            schema[key] = _TYPES.get(value.lower(), value.lower())
        elif key == "properties" and isinstance(value, dict):
            schema[key] = {name: json_schema_of(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties"):
            schema[key] = json_schema_of(value)
        else:
            schema[key] = value
    return schema


def judge(case: Case, calls: Sequence[ToolCall], said: str = "") -> Result:
    """Return whether the calls are those expected. ``share`` counts the expected arguments that are
    right; what was ``said`` instead of a call is shown."""
    shown = "\n".join(f"{call.name}({call.arguments})" for call in calls) or said
    left = list(case.expected)
    reasons: list[str] = []
    right = 0
    total = sum(len(expected.arguments) for expected in left)
    for call in calls:
        found = [(expected, *_compare(case, call, expected)) for expected in left]
        if not found:
            reasons.append(f"{call.name} is called, which nobody asked for")
            continue
        # The one it fits best; with all of them wrong, the one with most right arguments.
        expected, reason, matched = min(found, key=lambda item: (item[1] is not None, -item[2]))
        if reason is None or call.name == expected.name:
            left.remove(expected)
        right += matched
        if reason is not None:
            reasons.append(reason)
    reasons += [f"{expected.name} is not called" for expected in left]
    share = right / total if total else None
    return Result(case.id, case.category, not reasons, shown, "; ".join(reasons), share)


def _compare(case: Case, call: ToolCall, expected: Expected) -> tuple[str | None, int]:
    """Return what is wrong with a call, and how many arguments of ``expected`` are right; those
    that are left out and may be are."""
    if call.name != expected.name:
        return f"{call.name} is called, expected {expected.name}", 0
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return f"the arguments of {call.name} are no JSON", 0
    if not isinstance(arguments, dict):
        return f"the arguments of {call.name} are no object", 0
    schema = next((tool.parameters for tool in case.tools if tool.name == call.name), {})
    properties = schema.get("properties", {})
    wrong = []
    matched = 0
    for name, accepted in expected.arguments.items():
        if name in arguments:
            if _accepted(arguments[name], accepted, properties.get(name)):
                matched += 1
            else:
                wrong.append(f"{name} is {_short(arguments[name])}, expected {_short(accepted)}")
        elif "" in accepted and name not in schema.get("required", ()):
            matched += 1
        else:
            wrong.append(f"{name} is missing")
    wrong += [f"{name} is not expected" for name in arguments if name not in expected.arguments]
    return (f"{call.name}: " + ", ".join(wrong) if wrong else None), matched


def _accepted(value: Any, accepted: Sequence[Any], schema: Any) -> bool:
    declared = schema.get("type") if isinstance(schema, Mapping) else None
    kind = _PYTHON.get(declared) if isinstance(declared, str) else None
    # What is declared; or what is accepted none the less, such as the name of a variable.
    fits = kind is None or (isinstance(value, kind) and (kind is bool or not _is_bool(value)))
    return any(_equal(value, one) and (fits or type(value) is type(one)) for one in accepted)


def _equal(value: Any, accepted: Any) -> bool:
    if isinstance(value, str) and isinstance(accepted, str):
        return _plain(value) == _plain(accepted)
    if isinstance(value, list) and isinstance(accepted, list):
        return len(value) == len(accepted) and all(map(_equal, value, accepted))
    if isinstance(value, dict) and isinstance(accepted, dict):
        fields = {key: one if isinstance(one, list) else [one] for key, one in accepted.items()}
        return all(
            key in fields and any(_equal(item, one) for one in fields[key])
            for key, item in value.items()
        ) and all(key in value or "" in one for key, one in fields.items())
    if _is_bool(value) or _is_bool(accepted):
        return value is accepted
    return bool(value == accepted)


def _plain(text: str) -> str:
    return _UNSAID.sub("", text).lower().replace("'", '"')


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _tool(function: Any, path: Path) -> Tool:
    if not isinstance(function, dict):
        raise RequestError(f"a function in {path} is no object")
    name = field(function, "name", str, path)
    schema = json_schema_of(field(function, "parameters", dict, path))
    if not isinstance(schema.get("properties", {}), dict) or not isinstance(
        schema.get("required", []), list
    ):
        raise RequestError(f"the parameters of {name[:100]} in {path} are no schema of an object")
    return Tool(_called(name), field(function, "description", str, path), schema)


def _expected(call: Any, path: Path) -> Expected:
    if not isinstance(call, dict) or len(call) != 1:
        raise RequestError(f"an answer in {path} is no call of one function")
    [(name, arguments)] = call.items()
    if not isinstance(arguments, dict) or not all(
        isinstance(accepted, list) for accepted in arguments.values()
    ):
        raise RequestError(f"an answer in {path} has no lists of accepted values")
    return Expected(_called(name), arguments)


def _called(name: str) -> str:
    """Return a function's name as APIs allow it, without the dots of modules."""
    return name.replace(".", "_")
