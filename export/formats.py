"""Which parameter gets which format: the recipe's wishes, made to fit the shapes of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from edge_llm.errors import ConfigError, ExportError
from edge_llm.export.backends.registry import Backend
from edge_llm.export.recipe import GROUP_SIZES, Kind, Recipe
from edge_llm.program.pack import fitting_format

HEAD = "lm_head"


@dataclass(frozen=True, slots=True)
class Assignment:
    """``formats`` maps the weight of every linear and embedding, as the module names it, to its
    format; ``notes`` says in words where the recipe's wish did not fit."""

    formats: Mapping[str, str]
    notes: tuple[str, ...]


def assign_formats(
    model: nn.Module, recipe: Recipe, backend: Backend, stored: Mapping[str, int] | None = None
) -> Assignment:
    """Applies the recipe and the group size rule: where K is not a multiple of the asked group,
    the largest of 128, 64, 32 that divides it, with a note.

    ``stored`` maps parameters that the checkpoint itself holds as int4 to their group: where the
    recipe wants int4 for one, that group is taken.

    Raises:
        ConfigError: an override that matches no weight.
        ExportError: weights that no group divides, or formats the backend does not take.
    """
    formats: dict[str, str] = {}
    notes: list[str] = []
    problems: list[str] = []
    stored = stored or {}
    asked: dict[str, str] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        name = f"{path}.weight"
        kind = _kind(path, module)
        k = int(module.weight.shape[1])
        wanted = asked[name] = recipe.format_for(name, kind)
        taken = name in stored and wanted.startswith("i4")
        fitted = f"i4g{stored[name]}" if taken else fitting_format(wanted, k)
        if fitted is None:
            problems.append(f"{name} has {k} columns, which no group of {GROUP_SIZES} divides")
            continue
        if fitted != wanted and not taken:
            notes.append(f"{name}: {fitted} instead of {wanted}, which does not divide {k} columns")
        if fitted not in backend.formats:
            problems.append(f"{name}: backend {backend.name} does not take {fitted}")
        formats[name] = fitted
    _check_overrides(recipe, formats)
    if problems:
        raise ExportError("formats: " + "; ".join(problems))
    return Assignment(formats, (*_stored_notes(asked, formats, stored), *notes))


def _stored_notes(
    asked: Mapping[str, str], formats: Mapping[str, str], stored: Mapping[str, int]
) -> list[str]:
    """What becomes of the checkpoint's own integers."""
    if not stored:
        return []
    taken = [name for name in formats if name in stored and asked[name].startswith("i4")]
    rest = [name for name in formats if name not in taken]
    notes = [
        f"{len(taken)} of {len(formats)} matrices taken over as the checkpoint's own int4"
        + (f"; quantized here: {_listed(rest)}" if taken and rest else "")
    ]
    changes = Counter(
        (asked[name], formats[name]) for name in taken if asked[name] != formats[name]
    )
    notes += [
        f"{count} of them: {got}, the checkpoint's own groups, instead of {wanted}"
        for (wanted, got), count in changes.items()
    ]
    converted = [name for name in rest if name in stored]
    if converted:
        notes.append(f"int4 in the checkpoint, another format here: {_listed(converted)}")
    return notes


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _kind(path: str, module: nn.Module) -> Kind:
    if isinstance(module, nn.Embedding):
        return "embedding"
    return "head" if path == HEAD else "linear"


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
