"""The export: ``load -> plan -> pack -> write -> verify``.

Before ``verify`` no weight is in memory but the one at hand: the plan follows from the config, then
tensors are read, quantized, packed and written one at a time. The file is a function of the
sources, the recipe and this version: when, where and how fast it was made is told in the `Outcome`,
so that whoever makes it again gets the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from edge_llm.errors import ConfigError, ExportError
from edge_llm.export.ahead import imported
from edge_llm.export.backends.registry import Backend, get_backend
from edge_llm.export.lowering.graph import (
    Planned,
    Progress,
    default_path,
    documents,
    plan_model,
    tensor_specs,
)
from edge_llm.export.meter import Meter, silent
from edge_llm.export.origin.load import Loaded, load
from edge_llm.export.origin.provenance import UNKNOWN, hashed, provenance
from edge_llm.export.outcome import Outcome
from edge_llm.export.recipes.file import recipe_text
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.report import WeightRow, build_report
from edge_llm.export.verification.answers import golden_of
from edge_llm.export.weights.allocation import Budget, allocate, budget, mixed
from edge_llm.export.weights.calibration import calibrated, evened, measuring, notes_of, study
from edge_llm.export.weights.factors import factor_sizes, factors_of
from edge_llm.export.weights.kept import Kept, forget, key_of
from edge_llm.export.weights.pack import pack
from edge_llm.export.weights.parameters import Parameters, parameters_of, stored_formats
from edge_llm.export.weights.reading import reading
from edge_llm.extras import has_extra
from edge_llm.llm.registry import constants, shared_parameters
from edge_llm.program.documents import Documents
from edge_llm.program.partial import check_target
from edge_llm.program.tensors import TOKENIZER
from edge_llm.program.writer import ProgramWriter

_VERIFY = "edge_llm.export.verification.verify"  # with PyTorch, which takes seconds to import
_UNCOMPARED = "not compared with eager PyTorch, which is not installed"
_UNASKED = "not compared with eager PyTorch"


def export(
    recipe: Recipe,
    *,
    output: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make a program file and return its path.

    ``output`` None: a name made of the model and the scheme, in the store. ``progress(stage, done,
    total)`` is called as stages advance. The file appears in one step when all is done: whatever
    goes wrong, or interrupts, leaves nothing of it behind. What a calibration has worked out by
    then is kept in a hidden file beside it, from which the same call goes on.

    PyTorch is needed where the model must be traced, since its structure is none of those whose
    plans ship with the package. Where it is installed, the file is compared with eager PyTorch.

    Raises:
        ConfigError, SourceError, CheckpointError, TokenizerError: the recipe or its source.
        ExportError: a stage failed (UnsupportedOperatorError: an operator the plan cannot express;
            QualityGateError: the program is further from eager PyTorch than the recipe allows).
        MissingDependencyError: the model must be traced, and PyTorch is not installed.
        NativeError, CapacityError: there is no native core to verify with, or it failed.
        GenerationError: the program computes logits that are not finite.
    """
    return make_program(recipe, output=output, progress=progress).path


def make_program(
    recipe: Recipe,
    *,
    output: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    compare: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Do what `export` does, and return what it measured too. Without ``compare`` the file is run,
    but not compared with eager PyTorch, which is not loaded then. ``tell`` is called with a
    sentence for people where it goes on from what an export before has left, or cannot."""
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            f"recipe is of type {type(recipe).__name__}, expected a Recipe",
            hint="make one: edge_llm.export(edge_llm.Recipe(model=MODEL)), or with load_recipe of "
            "edge_llm.export.recipes.file",
        )
    try:
        return _Export(recipe, progress or silent, compare, tell).run(output)
    except MemoryError as exc:
        raise ExportError(
            f"the machine is out of memory{f': {exc}' if str(exc) else ''}",
            hint="--dry-run tells how much an export needs; other programs may hold the rest",
        ) from exc


class _Export:
    """One export: the recipe, and what its stages measure."""

    def __init__(
        self, recipe: Recipe, progress: Progress, compare: bool, tell: Callable[[str], None]
    ) -> None:
        self._recipe = recipe
        self._compare = compare
        self._tell = tell
        self._backend: Backend = get_backend(recipe.backend)
        self._progress = progress
        self._meter = Meter()

    def run(self, output: str | os.PathLike[str] | None) -> Outcome:
        recipe = self._recipe
        with self._meter.phase("export"), self._meter.stage("load"):
            loaded = load(recipe)
        path = Path(output) if output is not None else default_path(loaded, recipe)
        check_target(path)  # told before the long stages
        with loaded.sources.watched():
            return self._make(loaded, path)

    def _make(self, loaded: Loaded, path: Path) -> Outcome:
        recipe = self._recipe
        with self._meter.phase("export"):
            planned = self._planned(loaded, replace(recipe, bits=None))
            found = self._budget(loaded, planned)
        modules = [_VERIFY] if self._compares() else []
        with (
            ExitStack() as stack,
            imported(*modules),
            hashed(loaded.sources.paths) as digest,
        ):
            with (
                self._meter.phase("export"),
                self._settled(loaded, planned, found, path, digest) as settled,
            ):
                recipe, planned, parameters = settled
                # the header's size is known before the digests are
                unknown = self._provenance(loaded, planned, lambda path: UNKNOWN, silent)
                contents = documents(loaded, planned, recipe, unknown)
                specs = tensor_specs(loaded, planned, recipe, self._backend)
                writer = stack.enter_context(
                    ProgramWriter(path, planned.lowered.plan, contents, specs)
                )
                rows = self._weights(loaded, planned, parameters, writer)
                sizes = factor_sizes(planned.lowered, planned.moved(recipe))
                for name, values in factors_of(planned.lowered, sizes, parameters).items():
                    writer.write(name, values.astype("<f2"))
            with self._meter.phase("export"):
                origin = self._provenance(loaded, planned, digest, self._progress)
                contents = documents(loaded, planned, recipe, origin)
            outcome = self._verify(loaded, planned, parameters, writer, contents, rows)
            report = self._report(loaded, planned, parameters, rows)
            loaded.sources.check()  # what was hashed in the beginning is what was read
            with self._meter.stage("write"):
                written = writer.finish(replace(contents, report=report))
                forget(path)
        mix = None if found is None else recipe_text(recipe)
        return Outcome(written, report, self._meter.seconds, self._meter.peaks, outcome, mix)

    def _planned(self, loaded: Loaded, recipe: Recipe) -> Planned:
        return plan_model(loaded, recipe, self._backend, self._meter, self._progress)

    def _budget(self, loaded: Loaded, planned: Planned) -> Budget | None:
        """Return what the recipe's bits leave to be chosen, if it has some."""
        recipe = self._recipe
        if recipe.bits is None:
            return None
        config = loaded.checkpoint.config
        stored = stored_formats(loaded.checkpoint, recipe, shared_parameters(config))
        tables = frozenset(constants(config, 1))
        return budget(recipe.bits, planned, recipe, stored, tables, self._backend)

    @contextmanager
    def _settled(
        self,
        loaded: Loaded,
        planned: Planned,
        found: Budget | None,
        path: Path,
        digest: Callable[[Path], str],
    ) -> Iterator[tuple[Recipe, Planned, Parameters]]:
        """Yield the recipe and the plan with the formats that are ``found`` under a budget, and the
        parameters with all that tells how to round them: what they say themselves, or what they are
        multiplied with in a text that they read in a program beside ``path``, which is there as
        long."""
        recipe = replace(self._recipe, bits=None)
        tables = constants(loaded.checkpoint.config, loaded.context)
        own = parameters_of(
            loaded.checkpoint,
            recipe,
            tied=shared_parameters(loaded.checkpoint.config),
            constants=tables,
            turns=planned.rotations.turns,
        )
        if loaded.calibration is None:
            with self._meter.stage("plan"):
                parameters = evened(planned, recipe, own)
            yield recipe, planned, parameters
            return
        measured = measuring(recipe)
        reader = self._planned(loaded, measured)
        contents = documents(loaded, reader, measured, {})
        specs = tensor_specs(loaded, reader, measured, self._backend)
        plan = reader.lowered.plan
        parts, ids = reader.lowered.parts, loaded.calibration
        with ProgramWriter(path, plan, contents, specs) as writer, ExitStack() as stack:
            with self._meter.stage("calibrate"):
                self._weights(loaded, reader, own, writer)
                writer.seal(contents)
                program = writer.temporary_path
                read = stack.enter_context(reading(program, parts, ids, backend=recipe.backend))
                key = self._key(loaded, planned, digest)
                kept = stack.enter_context(Kept(path, key, self._tell))
                known = study(read, planned, own, self._progress, kept)
            if found is not None:
                with self._meter.stage("allocate"):
                    advanced = partial(self._progress, "allocate")
                    chosen = allocate(found, own, known, advanced, kept)
                    recipe = mixed(recipe, planned, chosen)
                planned = self._planned(loaded, recipe)
            yield recipe, planned, stack.enter_context(calibrated(read, known, own, kept))

    def _key(self, loaded: Loaded, planned: Planned, digest: Callable[[Path], str]) -> str:
        """Return what tells this export from others: the contents of its sources, by whatever name
        the model has, its recipe, and the versions of what makes it."""
        origin = self._provenance(loaded, planned, digest, silent)
        recipe = self._recipe.to_json() | {"model": None, "verify": None, "gate": None}
        return key_of([origin, recipe])

    def _provenance(
        self,
        loaded: Loaded,
        planned: Planned,
        digest: Callable[[Path], str],
        progress: Progress,
    ) -> dict[str, Any]:
        with self._meter.stage("provenance"):
            return provenance(
                loaded.sources.paths,
                loaded.checkpoint.license,
                lambda done, total: progress("hash sources", done, total),
                digest,
                traced=planned.traced,
            )

    def _weights(
        self, loaded: Loaded, planned: Planned, parameters: Parameters, writer: ProgramWriter
    ) -> list[WeightRow]:
        """Stages pack and write."""
        with self._meter.stage("pack"):
            writer.write(TOKENIZER, loaded.tokenizer.json)
            for name, table in loaded.tables.items():
                writer.write(name, table)
            return pack(
                planned.lowered,
                parameters,
                writer.write,
                backend=self._backend,
                progress=lambda done, total: self._progress("pack", done, total),
            )

    def _compares(self) -> bool:
        return self._recipe.verify and self._compare and has_extra("export")

    def _verify(
        self,
        loaded: Loaded,
        planned: Planned,
        parameters: Parameters,
        writer: ProgramWriter,
        documents: Documents,
        rows: list[WeightRow],
    ) -> dict[str, Any]:
        """Run the file, put its answers in as golden ones, and compare them with eager PyTorch's;
        return the comparison as JSON values."""
        if not self._recipe.verify:
            return {"skipped": "off in the recipe"}
        with self._meter.stage("write"):
            writer.seal(documents)
        self._progress("verify", 0, 1)
        compared: dict[str, Any] = {"skipped": _UNCOMPARED if self._compare else _UNASKED}
        with self._meter.phase("verify"), self._meter.stage("verify"):
            if self._compares():
                from edge_llm.export.verification.verify import check_gate, verify

                verification = verify(
                    writer.temporary_path,
                    loaded.checkpoint.config,
                    parameters,
                    planned,
                    rows,
                    kv_dtype=self._recipe.kv_format(),
                    backend=self._recipe.backend,
                )
                if self._recipe.gate is not None:
                    check_gate(verification, self._recipe.gate)
                golden, compared = verification.golden, verification.to_json()
            else:
                golden = golden_of(writer.temporary_path, self._recipe.backend)
        for name, values in golden.items():
            writer.write(name, values)
        self._progress("verify", 1, 1)
        return compared

    def _report(
        self, loaded: Loaded, planned: Planned, parameters: Parameters, rows: list[WeightRow]
    ) -> dict[str, Any]:
        return build_report(
            rows,
            tied=planned.tied_away,
            constants=frozenset(constants(loaded.checkpoint.config, 1)),
            notes=[*loaded.notes, *planned.notes, *notes_of(planned, parameters)],
            unread_config_keys=loaded.checkpoint.unread_config_keys,
        )
