"""How what each matrix is multiplied with becomes int8: by whole rows, or by groups of columns.

Groups lose a fifth of what whole rows lose, and make prompts slower by 2 to 13 %
(docs/quantization.md). So a recipe that says nothing has them where weights lose so little that it
shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edge_llm.export.recipes.recipe import Recipe
from edge_llm.program.formats import Activations, WeightFormat
from edge_llm.program.plan import Plan


def assign_activations(
    plan: Plan,
    recipe: Recipe,
    formats: Mapping[str, WeightFormat],
    stored: Mapping[str, WeightFormat],
    trained: Activations | None,
) -> dict[str, Activations]:
    """Return for every matrix of integers in ``formats`` how what it is multiplied with is rounded.

    ``stored`` are the formats of the checkpoint's own integers, and ``trained`` is the rounding
    that those were trained with, where the checkpoint says it. Matrices that are multiplied with
    one value round it one way, in groups if one of them would, since it is rounded once then.
    """
    ways: dict[str, Activations] = {
        name: recipe.rounding(taken_over=form == stored.get(name), trained=trained)
        for name, form in formats.items()
        if not form.is_float
    }
    for readers in _readers(plan):
        together = [name for name in readers if name in ways]
        if any(ways[name] == "group" for name in together):
            ways |= dict.fromkeys(together, "group")
    return ways


def _readers(plan: Plan) -> Iterable[list[str]]:
    """Return for each value the matrices that it is multiplied with."""
    for method in plan.methods.values():
        readers: dict[int, list[str]] = {}
        for instruction in method.instructions:
            if instruction.op in ("linear", "experts"):
                count = 1 if instruction.op == "linear" else 2  # gates, and what they let through
                names = [plan.weights[index].name for index in instruction.weights[:count]]
                readers.setdefault(instruction.inputs[0], []).extend(names)
        yield from readers.values()
