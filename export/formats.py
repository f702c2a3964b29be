"""Which parameter gets which format: the recipe's wishes, made to fit the shapes of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from edge_llm.errors import ConfigError, ExportError
from edge_llm.export.backends.registry import Backend
from edge_llm.export.quantize import FLOAT_DTYPES, group_of
from edge_llm.export.recipe import GROUP_SIZES, Kind, Recipe

HEAD = "lm_head"


@dataclass(frozen=True, slots=True)
class Assignment:
    """``formats`` maps the weight of every linear and embedding, as the module names it, to its
    format; ``notes`` says in words where the recipe's wish did not fit."""

    formats: Mapping[str, str]
    notes: tuple[str, ...]


def assign_formats(model: nn.Module, recipe: Recipe, backend: Backend) -> Assignment:
    """Applies the recipe and the group size rule: where K is not a multiple of the asked group,
    the largest of 128, 64, 32 that divides it, with a note.

    Raises:
        ConfigError: an override that matches no weight.
        ExportError: weights that no group divides, or formats the backend does not take.
    """
    formats: dict[str, str] = {}
    notes: list[str] = []
    problems: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        name = f"{path}.weight"
        kind = _kind(path, module)
        k = int(module.weight.shape[1])
        wanted = recipe.format_for(name, kind)
        fitted = _fit(wanted, k)
        if fitted is None:
            problems.append(f"{name} has {k} columns, which no group of {GROUP_SIZES} divides")
            continue
        if fitted != wanted:
            notes.append(f"{name}: {fitted} instead of {wanted}, which does not divide {k} columns")
        if fitted not in backend.formats:
            problems.append(f"{name}: backend {backend.name} does not take {fitted}")
        formats[name] = fitted
    _check_overrides(recipe, formats)
    if problems:
        raise ExportError("formats: " + "; ".join(problems))
    return Assignment(formats, tuple(notes))


def _kind(path: str, module: nn.Module) -> Kind:
    if isinstance(module, nn.Embedding):
        return "embedding"
    return "head" if path == HEAD else "linear"


def _fit(weight_format: str, k: int) -> str | None:
    if weight_format in FLOAT_DTYPES or k % group_of(weight_format, k) == 0:
        return weight_format
    return next((f"i4g{size}" for size in sorted(GROUP_SIZES, reverse=True) if k % size == 0), None)


def _check_overrides(recipe: Recipe, formats: Mapping[str, str]) -> None:
    unmatched = [
        pattern
        for pattern in recipe.overrides
        if not any(fnmatchcase(name, pattern) for name in formats)
    ]
    if unmatched:
        examples = ", ".join(list(formats)[:3])
        raise ConfigError(
            f"recipe: overrides match no weight: {', '.join(unmatched)}",
            hint=f"weights are named like {examples}",
        )
