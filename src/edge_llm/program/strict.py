"""Strict JSON: parsing that refuses what the standard module lets through, and typed access.

A decoded document is walked with a *path* ("plan.values[3].width"), so that an error names the
field at fault.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from edge_llm.errors import ProgramError

T = TypeVar("T")

INT32_MAX = 2**31 - 1


def parse_json(text: str, path: str) -> Any:
    """Parses one JSON document: no duplicate keys, no NaN or infinity, no lone surrogates.

    Raises:
        ProgramError: the text is not such a document; the message starts with ``path``.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            raise ProgramError(f"{path}: an object names a key twice")
        return result

    def constant(name: str) -> NoReturn:
        raise ProgramError(f"{path}: {name} is not a JSON number")

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ProgramError(f"{path}: a number does not fit a double")
        return value

    try:
        value = json.loads(
            text, object_pairs_hook=pairs, parse_constant=constant, parse_float=number
        )
        # Only an escape can bring a surrogate that no UTF-8 encoder takes.
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as exc:
        raise ProgramError(f"{path}: nested too deeply") from exc
    except ValueError as exc:  # includes JSONDecodeError and UnicodeEncodeError
        raise ProgramError(f"{path}: not valid JSON ({exc})") from exc
    return value


def dump_json(value: Any) -> str:
    """The compact form that `parse_json` reads back to an equal value.

    Raises:
        ValueError: the value holds NaN or infinity.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def fields(value: Any, path: str, names: Sequence[str]) -> dict[str, Any]:
    """An object with exactly the keys ``names``."""
    record = as_object(value, path)
    missing = [name for name in names if name not in record]
    if missing:
        raise ProgramError(f"{path}: missing {', '.join(missing)}")
    unknown = [name for name in record if name not in names]
    if unknown:
        raise ProgramError(f"{path}: unknown key {unknown[0]!r}")
    return record


def as_object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _wrong(value, path, "an object")
    return value


def as_list(value: Any, path: str, item: Callable[[Any, str], T], *, limit: int) -> tuple[T, ...]:
    """A list of at most ``limit`` entries, each decoded by ``item(entry, its path)``."""
    if not isinstance(value, list):
        _wrong(value, path, "a list")
    if len(value) > limit:
        raise ProgramError(f"{path}: {len(value)} entries, at most {limit} are allowed")
    return tuple(item(entry, f"{path}[{index}]") for index, entry in enumerate(value))


def as_str(value: Any, path: str, *, limit: int = 4096) -> str:
    if not isinstance(value, str):
        _wrong(value, path, "a string")
    if len(value) > limit:
        raise ProgramError(f"{path}: {len(value)} characters, at most {limit} are allowed")
    return value


def as_choice(value: Any, path: str, choices: Sequence[T]) -> T:
    """Return one of ``choices``, all of which are strings."""
    for choice in choices:
        if choice == value:
            return choice
    raise ProgramError(f"{path}: got {value!r:.64}, expected one of {', '.join(map(str, choices))}")


def as_int(value: Any, path: str, low: int = -(2**31), high: int = INT32_MAX) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        _wrong(value, path, "an integer")
    if not low <= value <= high:
        raise ProgramError(f"{path} is out of range, expected {low} to {high}")
    return value


def as_float(value: Any, path: str) -> float:
    """A finite number (an integer is one too)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        _wrong(value, path, "a number")
    if not abs(value) <= 2.0**127:
        raise ProgramError(f"{path} does not fit a float32")
    return float(value)


def as_bool(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        _wrong(value, path, "true or false")
    return value


def _wrong(value: Any, path: str, expected: str) -> NoReturn:
    raise ProgramError(f"{path}: expected {expected}, got {type(value).__name__}")
