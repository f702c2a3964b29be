"""The export: ``load -> quantize -> trace -> passes -> lower -> pack -> write -> verify``.

Before ``verify`` no weight is in memory but the one at hand: the graph is traced on ``meta``, then
tensors are read, quantized, packed and written one at a time.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_llm.errors import ExportError
from edge_llm.export.backends.registry import Backend, get_backend
from edge_llm.export.lowering.graph import (
    Progress,
    Traced,
    default_path,
    documents,
    tensor_specs,
    trace_model,
)
from edge_llm.export.meter import Meter
from edge_llm.export.origin.load import Loaded, load
from edge_llm.export.origin.provenance import provenance
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.report import WeightRow, build_report
from edge_llm.export.verification.verify import check_gate, verify
from edge_llm.export.weights.pack import pack
from edge_llm.export.weights.parameters import Parameters, parameters_of
from edge_llm.llm.registry import constants
from edge_llm.program.documents import Documents
from edge_llm.program.partial import check_target
from edge_llm.program.tensors import TOKENIZER
from edge_llm.program.writer import ProgramWriter


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
    try:
        return _Export(recipe, progress or _silent).run(output)
    except MemoryError as exc:
        raise ExportError(
            f"the machine is out of memory{f': {exc}' if str(exc) else ''}",
            hint="--dry-run tells how much an export needs; other programs may hold the rest",
        ) from exc


def _silent(stage: str, done: int, total: int) -> None:
    pass


class _Export:
    """One export: the recipe, and what its stages measure."""

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        self._recipe = recipe
        self._backend: Backend = get_backend(recipe.backend)
        self._progress = progress
        self._meter = Meter()

    def run(self, output: str | os.PathLike[str] | None) -> Path:
        recipe = self._recipe
        with self._meter.phase("export"), self._meter.stage("load"):
            loaded = load(recipe)
        path = Path(output) if output is not None else default_path(loaded, recipe)
        check_target(path)  # told before the long stages
        with loaded.sources.watched():
            return self._make(loaded, path)

    def _make(self, loaded: Loaded, path: Path) -> Path:
        recipe = self._recipe
        with self._meter.phase("export"):
            traced = trace_model(loaded, recipe, self._backend, self._meter, self._progress)
            contents = documents(loaded, traced, recipe, self._provenance(loaded))
        specs = tensor_specs(loaded, traced, recipe, self._backend)
        with ProgramWriter(path, traced.lowered.plan, contents, specs) as writer:
            with self._meter.phase("export"):
                rows = self._weights(loaded, traced, writer)
            outcome = self._verify(loaded, traced, writer, contents)
            report = self._report(loaded, traced, rows, outcome)
            loaded.sources.check()  # what was hashed in the beginning is what was read
            with self._meter.stage("write"):
                return writer.finish(replace(contents, report=report))

    def _provenance(self, loaded: Loaded) -> dict[str, Any]:
        with self._meter.stage("provenance"):
            return provenance(
                loaded.sources.paths,
                loaded.checkpoint.license,
                lambda done, total: self._progress("hash sources", done, total),
            )

    def _weights(self, loaded: Loaded, traced: Traced, writer: ProgramWriter) -> list[WeightRow]:
        """Stages pack and write."""
        with self._meter.stage("pack"):
            writer.write(TOKENIZER, loaded.tokenizer.json)
            for name, table in loaded.tables.items():
                writer.write(name, table)
            return pack(
                traced.lowered,
                self._parameters(loaded, traced),
                writer.write,
                backend=self._backend,
                progress=lambda done, total: self._progress("pack", done, total),
            )

    def _parameters(self, loaded: Loaded, traced: Traced) -> Parameters:
        tables = constants(loaded.checkpoint.config, loaded.context)
        return parameters_of(loaded.checkpoint, self._recipe, tied=traced.tied, constants=tables)

    def _verify(
        self, loaded: Loaded, traced: Traced, writer: ProgramWriter, documents: Documents
    ) -> dict[str, Any]:
        if not self._recipe.verify:
            return {"skipped": "verify is off in the recipe"}
        with self._meter.stage("write"):
            writer.seal(documents)
        self._progress("verify", 0, 1)
        with self._meter.phase("verify"), self._meter.stage("verify"):
            verification = verify(
                writer.temporary_path,
                loaded.checkpoint.config,
                self._parameters(loaded, traced),
                traced.assignment.formats,
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
        self, loaded: Loaded, traced: Traced, rows: list[WeightRow], outcome: dict[str, Any]
    ) -> dict[str, Any]:
        return build_report(
            rows,
            tied=traced.tied_away,
            constants=frozenset(constants(loaded.checkpoint.config, 1)),
            notes=[*loaded.notes, *traced.assignment.notes],
            unread_config_keys=loaded.checkpoint.unread_config_keys,
            seconds=self._meter.seconds,
            peak_anonymous_bytes=self._meter.peaks,
            verify=outcome,
        )
