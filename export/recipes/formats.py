"""Which parameter gets which format: the recipe's wishes, made to fit the shapes of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from edge_llm.errors import ConfigError, ExportError
from edge_llm.export.backends.registry import Backend
from edge_llm.export.recipes.activations import assign_activations
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.recipes.schemes import GROUP_SIZES, Kind
from edge_llm.llm.checkpoints.source import HEAD, PROJECTION
from edge_llm.llm.stacks import members
from edge_llm.program.formats import Activations, WeightFormat
from edge_llm.program.plan import Instruction, Plan


@dataclass(frozen=True, slots=True)
class Assignment:
    """``formats`` maps the weight of every linear and embedding, as the module names it, to its
    format; ``searched`` to that in which a calibration looks for factors, which is the scheme's
    where both are made of integers, so that they are the same for each mix of formats;
    ``activations`` says of those of integers how what they are multiplied with is
    rounded; ``notes`` says in words where the recipe's wish did not fit."""

    formats: Mapping[str, WeightFormat]
    searched: Mapping[str, WeightFormat]
    activations: Mapping[str, Activations]
    notes: tuple[str, ...]


def assign_formats(
    plan: Plan,
    recipe: Recipe,
    backend: Backend,
    stored: Mapping[str, WeightFormat] | None = None,
    trained: Activations | None = None,
) -> Assignment:
    """Apply the recipe and the group size rule: where K is not a multiple of the asked group, the
    largest of 128, 64, 32 that divides it, with a note.

    ``stored`` maps parameters that the checkpoint itself holds as integers to the format of those,
    which is taken where the recipe lets it; ``trained`` is how activations were rounded when those
    were trained, if that is known.

    Raises:
        ConfigError: an override that matches no weight, or a calibration that changes none.
        ExportError: weights that no group divides, or formats the backend does not take.
    """
    formats: dict[str, WeightFormat] = {}
    searched: dict[str, WeightFormat] = {}
    plain = recipe
    if recipe.calibration is not None and recipe.linear is None:
        plain = replace(recipe, overrides={})
    asked: dict[str, WeightFormat] = {}
    columns: dict[str, int] = {}
    notes: list[str] = []
    problems: list[str] = []
    stored = _with_stacks(stored or {}, plan)
    for name, kind, k in _matrices(plan):
        columns[name] = k
        asked[name] = recipe.format_for(name, kind)
        wanted = recipe.format_for(name, kind, stored.get(name))
        fitted = wanted.fitting(k)
        if fitted is None:
            problems.append(f"{name} has {k} columns, which no group of {GROUP_SIZES} divides")
            continue
        if fitted != wanted:
            notes.append(
                f"{name}: {fitted.name} instead of {wanted.name}, which does not divide {k} columns"
            )
        if fitted not in backend.formats:
            problems.append(f"{name}: backend {backend.name} does not take {fitted.name}")
        formats[name] = searched[name] = fitted
        usual = plain.format_for(name, kind, stored.get(name)).fitting(k)
        if usual is not None and _is_rounded(fitted) and _is_rounded(usual):
            searched[name] = usual
    _check_overrides(recipe, formats)
    for gate, up in _gates(plan):
        # their kernels read both side by side
        if formats.get(gate) != formats.get(up):
            wished = [asked[name].fitting(columns[name]) for name in (gate, up)]
            if wished[0] is None or wished[0] != wished[1]:
                problems.append(f"{gate} and {up.rpartition('.')[2]} have different formats")
                continue
            formats[gate] = formats[up] = wished[0]
            notes.append(f"{gate} and {up.rpartition('.')[2]}: {wished[0].name}, not as stored")
    if problems:
        raise ExportError("formats: " + "; ".join(problems))
    _check_calibration(recipe, searched, stored)
    return Assignment(
        formats,
        searched,
        assign_activations(plan, recipe, formats, stored, trained),
        (*_stored_notes(asked, formats, stored), *notes),
    )


def _is_rounded(form: WeightFormat) -> bool:
    return form.is_made and not form.is_float


def _with_stacks(stored: Mapping[str, WeightFormat], plan: Plan) -> Mapping[str, WeightFormat]:
    """Return ``stored`` with the format of each stack whose members are all in one."""
    stacks: dict[str, WeightFormat] = {}
    for weight in plan.weights:
        if len(weight.shape) == 3:
            formats = {stored.get(name) for name in members(weight.name, weight.shape)}
            form = formats.pop()
            if form is not None and not formats:
                stacks[weight.name] = form
    return {**stored, **stacks}


def _stored_notes(
    asked: Mapping[str, WeightFormat],
    formats: Mapping[str, WeightFormat],
    stored: Mapping[str, WeightFormat],
) -> list[str]:
    """Return what becomes of the checkpoint's own integers, in words."""
    if not stored:
        return []
    taken = [name for name in formats if formats[name] == stored.get(name)]
    floats = {name for name in formats if formats[name].is_float and name not in stored}
    rest = [name for name in formats if name not in taken and name not in floats]
    notes = [
        f"{len(taken)} of {len(taken) + len(rest)} matrices taken over as the checkpoint's own "
        "integers" + (f"; quantized here: {_listed(rest)}" if taken and rest else "")
    ]
    changes = Counter(
        (asked[name], formats[name]) for name in taken if asked[name] != formats[name]
    )
    notes += [
        f"{count} of them: {got.name}, the checkpoint's own format, instead of {wanted.name}"
        for (wanted, got), count in changes.items()
    ]
    converted = [name for name in rest if name in stored]
    if converted:
        notes.append(f"integers in the checkpoint, another format here: {_listed(converted)}")
    return notes


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _gates(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield the names of each layer's stacks of gates and of what they let through."""
    for method in plan.methods.values():
        for instruction in method.instructions:
            if instruction.op == "experts":
                gate, up = (plan.weights[index].name for index in instruction.weights[:2])
                yield gate, up


def _matrices(plan: Plan) -> Iterator[tuple[str, Kind, int]]:
    """Yield name, kind and columns of every matrix or stack, in the order of use."""
    seen: set[str] = set()  # methods share some
    for method in plan.methods.values():
        for name, kind, columns in _matrices_of(plan, method.instructions):
            if name not in seen:
                yield name, kind, columns
            seen.add(name)


def _matrices_of(
    plan: Plan, instructions: Sequence[Instruction]
) -> Iterator[tuple[str, Kind, int]]:
    """Yield the same of one method."""
    scored = {op.inputs[0] for op in instructions if op.op == "route"}
    gates = {op.outputs[0]: op.inputs[0] for op in instructions if op.op == "sigmoid"}
    scored |= {gates.get(op.inputs[1], -1) for op in instructions if op.op == "scale_rows"}
    for instruction in instructions:
        for index in instruction.weights:
            if index < 0 or not plan.weights[index].format.is_panel:
                continue
            weight = plan.weights[index]
            kind: Kind = "linear"
            if instruction.op == "embedding":
                kind = "embedding"
            elif weight.name == HEAD or weight.name.startswith(PROJECTION):  # small, and last
                kind = "head"
            elif instruction.outputs[0] in scored:
                kind = "router"
            yield weight.name, kind, weight.shape[-1]


def _check_calibration(
    recipe: Recipe, searched: Mapping[str, WeightFormat], stored: Mapping[str, WeightFormat]
) -> None:
    if recipe.calibration is not None and not any(
        form.group and form.is_made and form != stored.get(name) for name, form in searched.items()
    ):
        raise ConfigError(
            "calibration would change nothing: no matrix is rounded to groups of int4 or int6 here",
            hint="integers of the checkpoint are taken over unchanged; requantize=true in the "
            "recipe rounds them anew"
            if stored
            else None,
        )


def _check_overrides(recipe: Recipe, formats: Mapping[str, WeightFormat]) -> None:
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
