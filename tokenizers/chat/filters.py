"""jinja2's filters as chat templates may use them, and what operators become (see `bounds.py`)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any

from jinja2.exceptions import SecurityError

from edge_llm.tokenizers.chat import bounds

Filter = Callable[..., Any]

MAX_INDENT = 64
MAX_PRECISION = 100


def bounded(name: str, work: Filter) -> Filter:
    """Return the filter, refusing what only a bomb asks for, before it is computed."""
    what = f"a filter {name!r}"
    # Some filters want the environment first; jinja2 marks that on the function.
    first = 0 if getattr(work, "jinja_pass_arg", None) is None else 1

    @functools.wraps(work)
    def checked(*arguments: Any, **named: Any) -> Any:
        value, others = arguments[first], [*arguments[first + 1 :], *named.values()]
        if isinstance(value, Iterable) and not isinstance(value, Sized) and name == "join":
            value = list(value)
            arguments = (*arguments[:first], value, *arguments[first + 1 :])
        bounds.spend(_estimate(name, value, others, what), what)
        result = work(*arguments, **named)
        if isinstance(result, list | tuple | dict):
            bounds.weigh(result, what)
        return result

    return checked


def _estimate(name: str, value: Any, others: list[Any], what: str) -> int:
    """Return at least the size of a filter's result.

    Raises:
        SecurityError: an argument that is too large whatever the value.
    """
    weight = bounds.weigh(value, what) + sum(bounds.weigh(other, what) for other in others)
    if name in ("batch", "center", "indent", "slice", "truncate"):
        lines = 1 + value.count("\n") if isinstance(value, str) else 1
        return weight + lines * max([0, *(bounds.count_of(o) or bounds.size_of(o) for o in others)])
    if name == "format":
        fields = str(value).count("%")
        return weight * (1 + fields) + bounds.formatted(str(value), tuple(others))
    if name == "replace":
        return weight + bounds.replaced(str(value), *others[:2])
    if name == "join":
        texts = [len(other) for other in others if isinstance(other, str)]
        return weight + max([0, *texts]) * (len(value) if isinstance(value, Sized) else 0)
    if name in ("list", "sort", "unique", "groupby", "dictsort") and isinstance(value, str):
        return weight + bounds.size_of([None]) * len(value)
    if name == "round" and any(bounds.count_of(other) > MAX_PRECISION for other in others):
        raise SecurityError(f"the result of {what} is too large")
    if name == "sum" and any(isinstance(other, list | tuple) for other in others):
        raise SecurityError(f"{what} adds numbers alone")
    return weight


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return ``tojson`` as ``transformers`` has it: nothing is escaped for HTML."""
    step = bounds.count_of(indent) or bounds.size_of(indent)
    if step > MAX_INDENT:
        raise SecurityError(f"an indent of {step} is too large")
    beside = step * _depth(value) + sum(len(separator) for separator in separators or ())
    weight = bounds.weigh(value, "tojson")  # at least 64 an item
    bounds.spend(weight + weight * beside // 64, "tojson")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _depth(value: Any) -> int:
    """Return how deep containers lie in each other."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inner: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                inner.extend(item.values())
            elif isinstance(item, list | tuple):
                inner.extend(item)
        level = inner
    return depth


def _join(values: tuple[Any, ...]) -> str:
    """Return ``a ~ b``."""
    bounds.spend(bounds.weigh(values, "'~'"), "'~'")
    return "".join(map(str, values))


def _slice(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """Return ``value[start:stop:step]``."""
    bounds.spend(bounds.size_of(value), "a slice")
    return value[start:stop:step]


def _value(value: Any) -> Any:
    """Return a list, tuple or dictionary that the template has written down."""
    bounds.weigh(value, "a list")
    return value


OPERATORS: Mapping[str, Filter] = {
    "bounded_join": _join,
    "bounded_slice": _slice,
    "bounded_value": _value,
}
