"""Stages plan, or trace, and passes: what is settled before any weight is read, and the contents
of the file that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from edge_llm.catalogue.store import make_programs_dir
from edge_llm.errors import ConfigError
from edge_llm.export.backends.registry import Backend
from edge_llm.export.lowering.folds import Fold, find_folds, rounded_folds
from edge_llm.export.lowering.lowered import Lowered
from edge_llm.export.lowering.rotations import Rotations, find_rotations
from edge_llm.export.meter import Meter
from edge_llm.export.origin.load import Loaded
from edge_llm.export.passes.assign import assign
from edge_llm.export.passes.embed import embed, project
from edge_llm.export.passes.merge import merge
from edge_llm.export.passes.tie import tie
from edge_llm.export.recipes.formats import Assignment, assign_formats
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.recipes.schemes import DEFAULT_GROUP_SIZE
from edge_llm.export.report import megabytes
from edge_llm.export.verification.answers import golden_shapes
from edge_llm.export.weights.factors import factor_sizes
from edge_llm.export.weights.parameters import stored_formats
from edge_llm.llm.blueprints.shipped import blueprint_of
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.registry import constants, require_module, shared_parameters
from edge_llm.llm.stacks import members, stack_of
from edge_llm.program.container import TensorSpec
from edge_llm.program.documents import Documents, ModelFacts
from edge_llm.program.formats import RAW_F32, Activations, WeightFormat
from edge_llm.program.tensors import TOKENIZER, TOKENIZER_TABLES

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """A model as a plan. ``tied`` maps a parameter to the one whose values it shares;
    ``parameters`` counts each value once; ``shapes`` are those of a checkpoint's parameters and of
    constants;
    ``folds`` are the places where factors can move from a matrix into what makes its input,
    ``rotations`` what is folded into matrices before that, for which matrices that were one tensor
    take ``parted_bytes`` more;
    ``traced``: PyTorch has traced the model now, since no blueprint has its plan."""

    lowered: Lowered
    assignment: Assignment
    tied: Mapping[str, str]
    parameters: int
    shapes: Mapping[str, tuple[int, ...]]
    folds: tuple[Fold, ...]
    rotations: Rotations
    parted_bytes: int
    traced: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the report."""
        notes = (*self.assignment.notes, *self.rotations.notes)
        if not self.parted_bytes:
            return notes
        parted = (
            f"{megabytes(self.parted_bytes)} more: embedding and head, rotated, are no longer one"
        )
        return (*notes, parted)

    @property
    def tied_away(self) -> dict[str, str]:
        """The tied parameters that are stored under the other's tensor."""
        stored = {weight.tensor for weight in self.lowered.plan.weights}
        return {name: source for name, source in self.tied.items() if name not in stored}

    def moved(self, recipe: Recipe) -> tuple[Fold, ...]:
        """Return the places where an export moves factors. Without a text the rules of others
        (``scale_rule``) round a checkpoint's own numbers."""
        if recipe.calibration is not None:
            return self.searched
        if recipe.scale_rule != "hqq":
            return ()
        return rounded_folds(self.folds, self.assignment.formats)

    @property
    def searched(self) -> tuple[Fold, ...]:
        """The places where a calibration looks for factors."""
        return rounded_folds(self.folds, self.assignment.searched)


def plan_model(
    loaded: Loaded, recipe: Recipe, backend: Backend, meter: Meter, progress: Progress
) -> Planned:
    """Return the plan of a model under a recipe, its own integers taken over; reads no weight.

    Raises:
        ConfigError: an override that matches no weight, a calibration that changes none, or
            ``bits``, which need the weights.
        ExportError: a format that does not fit, or a graph that cannot be expressed.
        MissingDependencyError: the model must be traced, and PyTorch is not installed.
    """
    if recipe.bits is not None:
        raise ConfigError(
            f"bits is {recipe.bits:g}, whose mix of formats is known once an export has read the "
            "weights",
            hint="leave it out here, or take the recipe that an export with it prints",
        )
    config = loaded.checkpoint.config
    if recipe.rotate == "all" and loaded.embedding is not None:
        raise ConfigError(
            f"rotate is all, but {loaded.name} is there for vectors, which are its hidden states",
            hint="rotate=values leaves them as they are",
        )
    stored = stored_formats(loaded.checkpoint, recipe, shared_parameters(config))
    retrieval = loaded.checkpoint.retrieval
    projection = retrieval.projection if retrieval else ()
    return plan_config(
        config,
        loaded.context,
        recipe,
        backend,
        stored,
        meter,
        progress,
        trained=loaded.checkpoint.activations,
        projection=projection,
    )


def plan_config(
    config: DecoderConfig,
    context: int,
    recipe: Recipe,
    backend: Backend,
    stored: Mapping[str, WeightFormat],
    meter: Meter,
    progress: Progress,
    *,
    trained: Activations | None = None,
    projection: Sequence[tuple[int, int]] = (),
) -> Planned:
    """Return the plan of any model with these facts, for ``context`` tokens; ``stored`` and
    ``trained`` as in `assign_formats`, ``projection`` as in `Retrieval`. Raises as `plan_model`."""
    shared = shared_parameters(config)
    blueprint = blueprint_of(config)
    if blueprint is not None:
        with meter.stage("plan"):
            plan = blueprint.plan(config, context)
    else:
        require_module(config)
        from edge_llm.export.lowering.trace import traced_plan

        progress("trace", 0, 1)
        with meter.stage("trace"):
            plan = traced_plan(config, context, backend.operators)
        progress("trace", 1, 1)
    with meter.stage("plan"):
        if projection:
            plan = project(plan, projection)
        assignment = assign_formats(plan, recipe, backend, stored, trained)
        formats, tables = assignment.formats, constants(config, 1)
        owners = ((stack_of(name), form) for name, form in stored.items())
        kept = {name for name, form in owners if formats.get(name) == form}
        rotations = find_rotations(plan, recipe.rotate, kept)
        kept |= {*shared, *shared.values(), *tables}
        tied = rotations.tied(shared)
        folds = find_folds(plan, lambda name: name not in kept)
        lowered = assign(plan, assignment)
        lowered = merge(lowered, row_multiple=backend.row_multiple)
        lowered = tie(lowered, tied)
        if not rotations.hidden:
            lowered = embed(lowered)
    shapes = {
        part: shape
        for weight in plan.weights
        for part, shape in members(weight.name, weight.shape).items()
    }
    parted = shared.keys() - tied.keys()
    return Planned(
        lowered,
        assignment,
        tied,
        parameters=sum(
            prod(shape)
            for name, shape in shapes.items()
            if name not in shared and name not in tables
        ),
        shapes=shapes,
        folds=folds,
        rotations=rotations,
        parted_bytes=sum(
            backend.packed_bytes(formats[name], *shapes[name])
            for name in parted
            if formats[name] == formats[shared[name]]
        ),
        traced=blueprint is None,
    )


def tensor_specs(
    loaded: Loaded, planned: Planned, recipe: Recipe, backend: Backend
) -> list[TensorSpec]:
    """The file's tensors in their order."""
    plan = planned.lowered.plan
    specs = [
        TensorSpec(weight.tensor, "F32", weight.shape)
        if weight.format == RAW_F32
        else TensorSpec(weight.tensor, "U8", (backend.packed_bytes(weight.format, *weight.matrix),))
        for weight in {weight.tensor: weight for weight in plan.weights}.values()
    ]
    specs.append(TensorSpec(TOKENIZER, "U8", (len(loaded.tokenizer.json),)))
    specs += [
        TensorSpec(name, TOKENIZER_TABLES[name][0], table.shape)
        for name, table in loaded.tables.items()
    ]
    sizes = factor_sizes(planned.lowered, planned.moved(recipe))
    specs += [TensorSpec(name, "U8", (2 * size,)) for name, size in sizes.items()]
    if recipe.verify:
        shapes = golden_shapes(plan.context, plan.vocab, drafts=plan.draft is not None)
        specs += [TensorSpec(name, dtype, shape) for name, (dtype, shape) in shapes.items()]
    return specs


def documents(
    loaded: Loaded, planned: Planned, recipe: Recipe, provenance: Mapping[str, Any]
) -> Documents:
    """The file's documents, without a report."""
    config = loaded.checkpoint.config
    return Documents(
        model=ModelFacts(
            kv_dtype=recipe.kv_format(),
            name=loaded.name,
            family=config.model_type,
            parameters=planned.parameters,
            layers=config.num_hidden_layers,
            dim=config.hidden_size,
            vocab=config.vocab_size,
            context=loaded.context,
            trained_context=config.max_position_embeddings,
        ),
        tokenizer=loaded.tokenizer.facts,
        generation=loaded.generation,
        chat_template=loaded.tokenizer.chat_template,
        embedding=loaded.embedding,
        rerank=loaded.rerank,
        recipe=recipe.to_json(),
        provenance=dict(provenance),
    )


def default_path(loaded: Loaded, recipe: Recipe) -> Path:
    """Return a path in the store, whose folder is made, named after the model, the scheme and, if
    the recipe names them, the group size, if it is not the usual one, and the activations.

    Raises:
        SourceError: the folder cannot be made.
    """
    chosen = recipe.group_size
    group = f"-g{chosen}" if chosen not in (None, DEFAULT_GROUP_SIZE) else ""
    rounding = "" if recipe.activations is None else f"-by-{recipe.activations}"
    return make_programs_dir() / f"{loaded.name}-{recipe.scheme}{group}{rounding}.edge"
