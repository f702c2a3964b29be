"""The export: ``load -> quantize -> trace -> passes -> lower -> pack -> write -> verify``.

Before ``verify`` no weight is in memory but the one at hand: the graph is traced on ``meta``, then
tensors are read, quantized, packed and written one at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edge_llm import catalogue
from edge_llm.errors import ExportError
from edge_llm.export.backends.registry import Backend, get_backend
from edge_llm.export.eager import quantize_meta
from edge_llm.export.formats import Assignment, assign_formats
from edge_llm.export.load import Loaded, load
from edge_llm.export.lower import lower
from edge_llm.export.lowered import Lowered
from edge_llm.export.meter import Meter
from edge_llm.export.pack import pack
from edge_llm.export.passes.fold import fold
from edge_llm.export.passes.merge import merge
from edge_llm.export.passes.tie import tie
from edge_llm.export.provenance import provenance
from edge_llm.export.quantize import FLOAT_DTYPES
from edge_llm.export.recipe import DEFAULT_GROUP_SIZE, Recipe
from edge_llm.export.report import WeightRow, build_report
from edge_llm.export.trace import trace
from edge_llm.export.verify import check_gate, golden_shapes, verify
from edge_llm.llm.registry import build_model, constants, tied_parameters
from edge_llm.program.container import TensorSpec
from edge_llm.program.documents import Documents, ModelFacts
from edge_llm.program.file import TOKENIZER
from edge_llm.program.ops import RAW_F32
from edge_llm.program.writer import ProgramWriter

Progress = Callable[[str, int, int], None]


def export(
    recipe: Recipe,
    *,
    output: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Makes a program file and returns its path.

    ``output`` None: a name made of the model and the scheme, in the store. ``progress(stage, done,
    total)`` is called as stages advance. The file appears in one step when all is done: whatever
    goes wrong, or interrupts, leaves nothing behind.

    Raises:
        ConfigError, SourceError, CheckpointError, TokenizerError: the recipe or its source.
        ExportError: a stage failed (UnsupportedOperatorError: an operator the plan cannot express;
            QualityGateError: the program is further from eager PyTorch than the recipe allows).
        NativeError, CapacityError: there is no native core to verify with, or it failed.
        GenerationError: the program computes logits that are not finite.
    """
    return _Export(recipe, progress or _silent).run(output)


def _silent(stage: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Traced:
    """What is settled before the first weight is read."""

    lowered: Lowered
    assignment: Assignment
    tied: dict[str, str]
    parameters: int


class _Export:
    """One export: the recipe, and what its stages measure."""

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        self._recipe = recipe
        self._backend: Backend = get_backend(recipe.backend)
        self._progress = progress
        self._meter = Meter()

    def run(self, output: str | os.PathLike[str] | None) -> Path:
        with self._meter.phase("export"):
            with self._meter.stage("load"):
                loaded = load(self._recipe)
            traced = self._graph(loaded)
            documents = self._documents(loaded, traced)
        path = Path(output) if output is not None else self._default_path(loaded)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ExportError(f"cannot make the folder {path.parent}: {exc.strerror}") from exc
        specs = self._tensors(loaded, traced)
        with ProgramWriter(path, traced.lowered.plan, documents, specs) as writer:
            with self._meter.phase("export"):
                rows = self._weights(loaded, traced, writer)
            outcome = self._verify(loaded, traced, writer, documents)
            report = self._report(loaded, traced, rows, outcome)
            with self._meter.stage("write"):
                return writer.finish(replace(documents, report=report))

    def _graph(self, loaded: Loaded) -> _Traced:
        """Stages quantize (on ``meta``), trace, passes, lower."""
        config = loaded.checkpoint.config
        model = build_model(
            config, context=loaded.context, kv_dtype=FLOAT_DTYPES[self._recipe.kv_format()]
        )
        tied = tied_parameters(model)
        with self._meter.stage("quantize"):
            assignment = assign_formats(model, self._recipe, self._backend)
            quantize_meta(model, assignment.formats)
        self._progress("trace", 0, 1)
        with self._meter.stage("trace"):
            exported = trace(model)
        self._progress("trace", 1, 1)
        with self._meter.stage("passes"):
            fold(exported, assignment.formats)
        with self._meter.stage("lower"):
            lowered = lower(
                exported,
                assignment.formats,
                context=loaded.context,
                kv_dtype=self._recipe.kv_format(),
                operators=self._backend.operators,
            )
        with self._meter.stage("passes"):
            lowered = merge(lowered, row_multiple=self._backend.row_multiple)
            lowered = tie(lowered, tied)
        return _Traced(
            lowered,
            assignment,
            tied,
            parameters=sum(
                parameter.numel()
                for name, parameter in model.named_parameters()
                if name not in tied
            ),
        )

    def _documents(self, loaded: Loaded, traced: _Traced) -> Documents:
        config, checkpoint = loaded.checkpoint.config, loaded.checkpoint
        with self._meter.stage("provenance"):
            origin = provenance(
                checkpoint.sources,
                checkpoint.license,
                lambda done, total: self._progress("hash sources", done, total),
            )
        return Documents(
            model=ModelFacts(
                name=loaded.name,
                family=config.family,
                parameters=traced.parameters,
                layers=config.layers,
                dim=config.dim,
                vocab=config.vocab,
                context=loaded.context,
                trained_context=config.context,
            ),
            tokenizer=loaded.tokenizer.facts,
            generation=loaded.generation,
            chat_template=loaded.tokenizer.chat_template,
            recipe=self._recipe.to_json(),
            provenance=origin,
        )

    def _default_path(self, loaded: Loaded) -> Path:
        chosen = self._recipe.group_size
        group = f"-g{chosen}" if chosen not in (None, DEFAULT_GROUP_SIZE) else ""
        return catalogue.programs_dir() / f"{loaded.name}-{self._recipe.scheme}{group}.edge"

    def _tensors(self, loaded: Loaded, traced: _Traced) -> list[TensorSpec]:
        plan = traced.lowered.plan
        specs = [
            TensorSpec(weight.tensor, "F32", weight.shape)
            if weight.format == RAW_F32
            else TensorSpec(
                weight.tensor, "U8", (self._backend.packed_bytes(weight.format, *weight.shape),)
            )
            for weight in {weight.tensor: weight for weight in plan.weights}.values()
        ]
        specs.append(TensorSpec(TOKENIZER, "U8", (len(loaded.tokenizer.json),)))
        if self._recipe.verify:
            shapes = golden_shapes(plan.context, plan.vocab)
            specs += [TensorSpec(name, dtype, shape) for name, (dtype, shape) in shapes.items()]
        return specs

    def _weights(self, loaded: Loaded, traced: _Traced, writer: ProgramWriter) -> list[WeightRow]:
        """Stages pack and write."""
        tables = constants(loaded.checkpoint.config, loaded.context)

        def read(name: str) -> torch.Tensor:
            return tables[name] if name in tables else loaded.checkpoint.tensor(name)

        with self._meter.stage("pack"):
            writer.write(TOKENIZER, loaded.tokenizer.json)
            return pack(
                traced.lowered,
                read,
                writer.write,
                backend=self._backend,
                scale_rule=self._recipe.scale_rule,
                progress=lambda done, total: self._progress("pack", done, total),
            )

    def _verify(
        self, loaded: Loaded, traced: _Traced, writer: ProgramWriter, documents: Documents
    ) -> dict[str, Any]:
        if not self._recipe.verify:
            return {"skipped": "verify is off in the recipe"}
        with self._meter.stage("write"):
            writer.seal(documents)

        def read(name: str) -> torch.Tensor:
            return loaded.checkpoint.tensor(traced.tied.get(name, name))

        self._progress("verify", 0, 1)
        with self._meter.phase("verify"), self._meter.stage("verify"):
            verification = verify(
                writer.temporary_path,
                loaded.checkpoint.config,
                read,
                traced.assignment.formats,
                scale_rule=self._recipe.scale_rule,
                kv_dtype=self._recipe.kv_format(),
                backend=self._recipe.backend,
            )
        if self._recipe.gate is not None:
            check_gate(verification, self._recipe.gate)
        for name, values in verification.golden.items():
            writer.write(name, values)
        self._progress("verify", 1, 1)
        return verification.to_json()

    def _report(
        self, loaded: Loaded, traced: _Traced, rows: list[WeightRow], outcome: dict[str, Any]
    ) -> dict[str, Any]:
        stored = {weight.tensor for weight in traced.lowered.plan.weights}
        return build_report(
            rows,
            tied={name: source for name, source in traced.tied.items() if name not in stored},
            constants=frozenset(constants(loaded.checkpoint.config, 1)),
            notes=[*loaded.notes, *traced.assignment.notes],
            unread_config_keys=loaded.checkpoint.unread_config_keys,
            seconds=self._meter.seconds,
            peak_anonymous_bytes=self._meter.peaks,
            verify=outcome,
        )
