"""From a JSON object to a request model, or to the error that names the field at fault."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edge_llm.errors import RequestError
from edge_llm.runner.sampling import NAMES, PARAMETERS
from edge_llm.server.errors import ApiError, invalid, translate
from edge_llm.server.requests.sampling import Generating
from edge_llm.server.requests.unsupported import NO_EFFECT, UNSUPPORTED

Model = TypeVar("Model", bound=BaseModel)

_log = logging.getLogger(__name__)

MAX_NAMED = 16

# What pydantic calls a wrong type -> what was expected.
_EXPECTED = MappingProxyType(
    {
        "bool": "a boolean",
        "dict": "an object",
        "finite_number": "a finite number",
        "float": "a number",
        "int": "an integer",
        "list": "an array",
        "model": "an object",
        "string": "a string",
    }
)
_TYPE_ERROR = re.compile(r"(bool|dict|float|int|list|model|string)_(type|parsing|parsing_size)$")


def validate(
    kind: type[Model],
    body: dict[str, Any],
    *,
    strict: bool,
    unsupported: Mapping[str, tuple[Any, ...]] = UNSUPPORTED,
) -> tuple[Model, list[str]]:
    """Return the request, and the names of the fields in it that were ignored. Those in
    ``unsupported`` may have the values there alone.

    Raises:
        ApiError: 400, naming the first field at fault. ``strict``: unknown fields too.
    """
    try:
        request = kind.model_validate(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise _refusal(
            first["type"], _path(first["loc"]), first.get("ctx", {}), first["msg"]
        ) from exc
    check_finite(body)
    ignored = list(dict.fromkeys(_ignored(request, "", unsupported)))
    if ignored and strict:
        raise invalid(f"Unknown parameter: '{ignored[0]}'.", ignored[0], "unknown_parameter")
    if ignored:
        _log.warning("ignored unknown parameters: %s", ", ".join(ignored[:MAX_NAMED]))
    return request, ignored[:MAX_NAMED]


def check_sampling(request: Generating, *, least_tokens: int) -> None:
    """Check what the fields that all generating routes share mean together.

    Args:
        least_tokens: what ``max_tokens`` may be at least.

    Raises:
        ApiError: 400: options of a stream where none is asked for, two names of one parameter, or
            too few tokens.
    """
    try:
        max_tokens = request.sampling().get("max_tokens", least_tokens)
    except RequestError as exc:
        raise translate(exc, "") from exc
    if max_tokens < least_tokens:
        names = (alias for alias, name in NAMES.items() if name == "max_tokens")
        given = next(name for name in names if getattr(request, name) is not None)
        raise _refusal("greater_than_equal", given, {"ge": least_tokens}, "")
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise invalid("'best_of' is not supported beyond 'n'.", "best_of", "unsupported_value")
    if request.stream_options is not None and not request.stream:
        raise invalid("'stream_options' is only allowed when 'stream' is true.", "stream_options")


def check_finite(body: Mapping[str, Any]) -> None:
    """Check that no number in a body is NaN or infinite: JSON has no such numbers, Python's reader
    takes them, and whatever is written with them later is no JSON either.

    Raises:
        ApiError: 400, naming the field of the body that holds one at whatever depth.
    """
    for name, value in body.items():
        level = [value]
        while level:
            if any(isinstance(item, float) and not math.isfinite(item) for item in level):
                param = _safe(name)
                raise invalid(
                    f"Invalid type for '{param}': expected finite numbers.", param, "invalid_type"
                )
            level = [
                child
                for item in level
                if isinstance(item, dict | list)
                for child in (item.values() if isinstance(item, dict) else item)
            ]


def _safe(name: str) -> str:
    """Return a field's name in characters that a header can hold; the name may be empty."""
    return re.sub(r"[^A-Za-z0-9_.-]", "?", name)[:64] or "?"


def _ignored(
    model: BaseModel, prefix: str, unsupported: Mapping[str, tuple[Any, ...]]
) -> Iterator[str]:
    """Yield the paths of fields without a meaning here, in safe characters."""
    for name, value in (model.model_extra or {}).items():
        safe = prefix + _safe(name)
        if name in unsupported:
            if value not in unsupported[name]:
                raise invalid(
                    f"'{safe}' is not supported by this server.", safe, "unsupported_parameter"
                )
        elif name not in NO_EFFECT:
            yield safe
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _ignored(value, f"{prefix}{name}.", unsupported)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _ignored(item, f"{prefix}{name}[{index}].", unsupported)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part == "[key]":
            break
        elif part.startswith("<"):  # a kind of object (`kinds.py`), no key
            continue
        else:
            path += f".{part}" if path else part
    return path


def _refusal(kind: str, param: str, context: Mapping[str, Any], message: str) -> ApiError:
    for name in ("logit_bias", "metadata"):  # their keys are the client's
        if param.startswith(f"{name}."):
            param = name
    if kind.startswith("kind_"):  # of an object, by `kinds.py`
        param = f"{param}.type" if param else "type"
        if kind == "kind_unsupported":
            return invalid(f"Invalid '{param}': {message}.", param, "unsupported_value")
        kind = "missing" if kind == "kind_missing" else "string_type"
    if kind == "missing":
        return invalid(
            f"Missing required parameter: '{param}'.", param, "missing_required_parameter"
        )
    if wrong := _TYPE_ERROR.match(kind) or re.match("(finite_number)$", kind):
        expected = _EXPECTED[wrong[1]]
        if expected == "an array" and re.split(r"[.\[]", param)[-1] in _OR_TEXT:
            expected = "a string or an array"
        return invalid(f"Invalid type for '{param}': expected {expected}.", param, "invalid_type")
    if kind == "unsupported_parameter":
        return invalid(f"'{param}' is not supported by this server.", param, kind)
    if kind in ("prompt_type", "wrong_kind"):
        return invalid(f"Invalid type for '{param}': {message}.", param, "invalid_type")
    if kind in _BOUNDS:
        side, words, sign, key = _BOUNDS[kind]
        noun = "integer" if param.split(".")[-1].split("[")[0] in _INTEGERS else "decimal"
        return invalid(
            f"Invalid '{param}': {noun} {words} value. Expected a value {sign} {context[key]}.",
            param,
            f"{noun}_{side}_value",
        )
    match kind:
        case "too_long":
            code, problem = "array_above_max_length", f"at most {context['max_length']} entries"
        case "too_short":
            code, problem = "empty_array", "at least one entry"
        case "string_too_long":
            code, problem = "string_above_max_length", f"at most {context['max_length']} characters"
        case "string_too_short":
            code, problem = "empty_string", "at least one character"
        case "string_unicode":
            code, problem = "invalid_value", "Unicode text"
        case "string_pattern_mismatch":
            code, problem = "invalid_value", f"text that matches {context['pattern']}"
        case "literal_error":
            code, problem = "invalid_value", f"one of {context['expected']}"
        case _:
            code, problem = "invalid_value", message
    return invalid(f"Invalid '{param}': expected {problem}.", param, code)


# Arrays in whose place a string may stand, whatever the dialect.
_OR_TEXT = frozenset({"content", "dry_sequence_breakers", "input", "output", "stop", "system"})
# What pydantic calls a bound -> our code and words for it, its sign, and where the limit is.
_BOUNDS = MappingProxyType(
    {
        "greater_than": ("below_min", "below minimum", ">", "gt"),
        "greater_than_equal": ("below_min", "below minimum", ">=", "ge"),
        "less_than_equal": ("above_max", "above maximum", "<=", "le"),
    }
)
_INTEGERS = frozenset(
    {
        "best_of",
        "budget_tokens",
        "dimensions",
        "logprobs",
        "max_output_tokens",
        "n",
        "num_ctx",
        "num_predict",
        "thinking_budget",
        "tokens",
        "top_logprobs",
        "top_n",
    }
) | {alias for alias, name in NAMES.items() if PARAMETERS[name].kind in ("integer", "ids")}
