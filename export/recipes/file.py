"""Recipes in YAML: by the name of one that comes with the package, or a file, with settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from edge_llm.errors import ConfigError
from edge_llm.export.recipes.recipe import Gate, Recipe
from edge_llm.llm.config import shorten

MAX_CHARACTERS = 2**15  # of a YAML file, whose parser takes half a second for that


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in _recipes_folder().iterdir()
        if entry.name.endswith(".yaml")
    )


def load_recipe(recipe: str | Path, settings: Sequence[str] = (), **fields: Any) -> Recipe:
    """Reads a recipe by name or YAML path; ``settings`` (``key=value``, values in YAML; nested as
    ``gate.max_kl=0.1`` or ``overrides.*lm_head*=f16``) and then ``fields`` take precedence.

    Raises:
        ConfigError: no such recipe, damaged YAML, an unknown key or value.
    """
    path: Traversable = Path(recipe)
    if Path(recipe).suffix not in (".yaml", ".yml"):
        path = _recipes_folder() / f"{recipe}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(
            f"no recipe {str(recipe)!r}; recipes: {', '.join(recipe_names())}, or a YAML file"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"recipe {path}: {exc}") from exc
    loaded = _parsed(text, f"recipe {path}")
    if not isinstance(loaded, dict):
        raise ConfigError(f"recipe {path}: expected a mapping of keys to values")
    document: dict[str, Any] = loaded
    for setting in settings:
        _apply(document, setting)
    return _from_document(document | fields, where=path.name)


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe in YAML as `load_recipe` reads it, for any model: the fields that are not as
    usual."""
    usual = Recipe()
    document: dict[str, Any] = {"scheme": recipe.scheme}
    for entry in dataclasses.fields(recipe):
        value = getattr(recipe, entry.name)
        if entry.name != "model" and value != getattr(usual, entry.name):
            document[entry.name] = _plain(value)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=MAX_CHARACTERS)


def _plain(value: Any) -> Any:
    """Return what YAML has for a value of a field."""
    if isinstance(value, Gate):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _parsed(text: str, where: str) -> Any:
    """YAML without aliases, by which a few lines stand for more than fits in memory.

    Raises:
        ConfigError: anything else.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{where}: {len(text)} characters, expected at most {MAX_CHARACTERS}")
    try:
        aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
        value = None if aliases else yaml.safe_load(text)
    except Exception as exc:  # values that do not fit their tag raise whatever Python does
        raise ConfigError(f"{where}: not YAML: {exc}") from exc
    if aliases:
        raise ConfigError(f"{where}: aliases (*name) are not supported")
    return value


def _recipes_folder() -> Traversable:
    return files("edge_llm") / "configs" / "recipes"


def _apply(document: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator:
        raise ConfigError(f"setting {setting!r}: expected key=value")
    value = _parsed(text, f"setting {setting!r}")
    key, _, inner = key.strip().partition(".")
    if inner:  # a pattern may hold further dots
        current = document.get(key)
        document[key] = (dict(current) if isinstance(current, dict) else {}) | {inner: value}
    else:
        document[key] = value


def _from_document(document: Mapping[str, Any], *, where: str) -> Recipe:
    names = [entry.name for entry in dataclasses.fields(Recipe)]
    unknown = [_named(key) for key in document if key not in names]
    values = dict(document)
    gate = values.get("gate")
    if gate is False:  # YAML reads `off` as false
        values["gate"] = None
    elif isinstance(gate, dict):
        limits = [entry.name for entry in dataclasses.fields(Gate)]
        unknown += [f"gate.{_named(key)}" for key in gate if key not in limits]
        names += [f"gate.{name}" for name in limits]
        numbers = {
            key: number for key, value in gate.items() if (number := _number(value)) is not None
        }
        if len(numbers) < len(gate):
            bad = ", ".join(_named(key) for key in gate if key not in numbers)
            raise ConfigError(f"recipe {where}: gate limits must be numbers: {bad}")
        values["gate"] = Gate(**numbers) if not unknown else None
    if unknown:
        raise ConfigError(
            f"recipe {where}: unknown {', '.join(unknown)}; valid keys: {', '.join(names)}"
        )
    return Recipe(**values)


def _number(value: Any) -> float | None:
    """A number, or None. Strings too, since YAML reads ``1e-3`` (no point) as one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (OverflowError, ValueError):
        return None


def _named(key: object) -> str:
    return key if isinstance(key, str) else shorten(key)
