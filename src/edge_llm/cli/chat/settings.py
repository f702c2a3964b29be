"""``/set``: the sampling parameters by name, and how they are shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.runner.sampling import Parameter

_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
UNSET = ("default", "none", "unset")


def names() -> list[str]:
    """Return the names of all sampling parameters, those that are rarely needed last."""
    from edge_llm.runner.sampling import PARAMETERS

    return sorted(PARAMETERS, key=lambda name: (PARAMETERS[name].rare, not PARAMETERS[name].cli))


def name_of(given: str) -> str:
    """Return the name of the parameter that is meant.

    Raises:
        RequestError: there is none; the hint has the nearest.
    """
    from edge_llm.runner.sampling import canonical

    (name,) = canonical({given: None})
    return name


def value_of(name: str, text: str) -> Any:
    """Return the value that is written, checked.

    Raises:
        RequestError: it is none, or out of range.
    """
    from edge_llm.runner.sampling import PARAMETERS

    parameter = PARAMETERS[name]
    return parameter.check(_read(parameter, text))


def switch_of(text: str) -> bool | None:
    """Return what a switch is set to; None for what is neither on nor off."""
    return _SWITCH.get(text.lower())


def choices_of(name: str) -> list[str]:
    """Return the values that can be completed."""
    from edge_llm.runner.sampling import PARAMETERS

    parameter = PARAMETERS.get(name)
    if parameter is None:
        return []
    return [*parameter.choices, *(["on", "off"] if parameter.kind == "boolean" else []), "default"]


def shown(value: Any) -> str:
    """Return a value as `value_of` reads it; "-" for one that is not set."""
    match value:
        case None:
            return "-"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case dict():
            return " ".join(f"{token}={bias:g}" for token, bias in value.items()) or "-"
        case tuple() | list():
            texts = any(isinstance(item, str) for item in value)
            written = json.dumps(list(value), ensure_ascii=False)
            return (written if texts else " ".join(map(str, value))) or "-"
    return str(value)


def _read(parameter: Parameter, text: str) -> Any:
    """Return what is written as the parameter's kind of value, or as text, which its check
    refuses."""
    match parameter.kind:
        case "integer" | "number":
            return _number(text)
        case "boolean":
            return _SWITCH.get(text.lower(), text)
        case "strings":
            return _strings(parameter.name, text)
        case "ids":
            return [_number(item) for item in text.replace(",", " ").split()]
        case "biases":
            pairs = (item.partition("=") for item in text.replace(",", " ").split())
            return {_number(token): _number(bias) for token, _, bias in pairs}
    return text


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _strings(name: str, text: str) -> Any:
    """Return a list of texts: JSON, where it begins like it, else the text as it is."""
    if not text.startswith(("[", '"')):
        return [text]
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise RequestError(f'{name}: {exc}; expected a text, or JSON as ["a", "\\n"]') from exc
    return found if isinstance(found, list) else [found]
