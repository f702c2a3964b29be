"""The outcome and the cost of an export before it is made: everything but the weights.

The plan is made as for an export, so a model or recipe that cannot be exported is refused here
too; no tensor is read and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

from edge_llm.errors import SourceError
from edge_llm.export.backends.registry import Backend, get_backend
from edge_llm.export.lowering.graph import Planned, Progress, documents, plan_model, tensor_specs
from edge_llm.export.meter import Meter, anonymous_bytes, silent
from edge_llm.export.origin.load import Loaded, load
from edge_llm.export.origin.provenance import UNKNOWN, provenance
from edge_llm.export.outline import activation_bytes, describe_outline, outline
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.report import (
    WeightRow,
    build_report,
    formats_lines,
    megabytes,
    notes_lines,
    stack_row,
)
from edge_llm.export.verification.answers import verified_positions
from edge_llm.export.weights.parameters import shared, stored_formats
from edge_llm.export.weights.prepared import CHUNK_ELEMENTS
from edge_llm.extras import has_extra
from edge_llm.llm.registry import constants, shared_parameters
from edge_llm.program.cost import context_bytes, token_bytes, weight_bytes
from edge_llm.program.draft import program_bytes
from edge_llm.program.formats import RAW_F32

_ENOUGH = "A dry run needs no weights: a folder with the model's config.json and tokenizer will do."
# Copies, in units of what is named, that the stages hold at once; seen in measurements.
_PACK_CHUNKS = 6  # of a chunk of rows in float32
_VERIFY_LOGITS = 8  # of all logits in float32
_PYTORCH = 250_000_000  # bytes that it takes once it is imported, which is while tensors are packed
_DECODED = (".gguf", ".pth")  # sources whose tensors are copied whole, in up to 4 bytes an element


def dry_run(
    recipe: Recipe, *, tokens: int, rows: int, progress: Progress | None = None
) -> dict[str, Any]:
    """The plan, sizes and memory of an export as JSON values; reads no weight, writes nothing.

    A folder with a config.json is enough. ``tokens`` and ``rows``: of the largest step at run time
    (activations are counted for it). Sizes in bytes. ``report`` has the form of an export's,
    without what only an export can measure. ``file.exact`` is False where the folder has no
    weights, whose names are part of a program's header.

    Raises:
        ConfigError, SourceError, CheckpointError, TokenizerError: the recipe or its source.
        ExportError: the model cannot be expressed as a plan, or its formats do not fit.
    """
    backend = get_backend(recipe.backend)
    meter = Meter()
    with meter.phase("plan"):
        try:
            loaded = load(recipe, weightless=True)
        except SourceError as exc:
            raise SourceError(str(exc), hint=f"{exc.hint}\n{_ENOUGH}") from exc
        planned = plan_model(loaded, recipe, backend, meter, progress or silent)
    return _document(loaded, planned, recipe, backend, tokens, rows)


def describe(document: Mapping[str, Any]) -> str:
    """`dry_run` as text for people."""
    report, memory, export = document["report"], document["memory"], document["export"]
    file = document["file"]
    exact = "" if file["exact"] else ", about"
    lines = [
        f"{document['model']} ({document['family']}), {report['parameters']:,} parameters, "
        f"context {document['context']} of {document['trained_context']} tokens",
        describe_outline(document["plan"]),
        "weights:",
        *formats_lines(report),
        f"file: {file['bytes']:,} bytes{exact} ({megabytes(report['weight_bytes'])} of weights, "
        f"{megabytes(file['tokenizer_bytes'])} of tokenizer), "
        f"{report['bits_per_weight']:.2f} bits per weight",
        f"KV cache: {document['kv']['bytes_per_token']:,} bytes a token ({document['kv']['dtype']})"
        f", {megabytes(document['kv']['bytes'])} for a whole context",
        f"read per decoded token: {megabytes(document['read_per_token'])}",
        f"memory at run time, about {megabytes(memory['total'])}: file {megabytes(memory['file'])}"
        f" (mapped), KV {megabytes(memory['kv'])} (one whole context), activations "
        f"{megabytes(memory['activations'])} (a step of {memory['step_tokens']} tokens)",
        f"the export needs {megabytes(export['disk'])} of disk and about "
        f"{_peaks(export['peak_anonymous_bytes'])} of anonymous memory",
        *notes_lines(report),
    ]
    return "\n".join(lines)


def _peaks(peaks: Mapping[str, int] | None) -> str:
    if peaks is None:
        return "an unknown amount"
    return ", ".join(f"{megabytes(value)} ({phase})" for phase, value in peaks.items())


def _document(
    loaded: Loaded, planned: Planned, recipe: Recipe, backend: Backend, tokens: int, rows: int
) -> dict[str, Any]:
    plan, config = planned.lowered.plan, loaded.checkpoint.config
    specs = tensor_specs(loaded, planned, recipe, backend)
    origin = provenance(
        loaded.sources.paths,
        loaded.checkpoint.license,
        lambda done, total: None,
        digest=lambda path: UNKNOWN,
        traced=planned.traced,
    )
    file_bytes = program_bytes(plan, documents(loaded, planned, recipe, origin), specs)
    per_token = token_bytes(plan, recipe.kv_format())
    kv = context_bytes(plan, recipe.kv_format(), tokens)
    activations = activation_bytes(plan, tokens=tokens, rows=rows)
    return {
        "model": loaded.name,
        "family": config.model_type,
        "context": loaded.context,
        "trained_context": config.max_position_embeddings,
        "recipe": recipe.to_json(),
        "report": build_report(
            _rows(loaded, planned, recipe, backend),
            tied=planned.tied_away,
            constants=frozenset(constants(config, 1)),
            notes=[*loaded.notes, *planned.notes],
            unread_config_keys=loaded.checkpoint.unread_config_keys,
        ),
        "plan": outline(plan),
        "file": {
            "bytes": file_bytes,
            "exact": not loaded.weightless,
            "tokenizer_bytes": len(loaded.tokenizer.json)
            + sum(table.nbytes for table in loaded.tables.values()),
        },
        "kv": {"dtype": recipe.kv_format(), "bytes_per_token": per_token, "bytes": kv},
        "read_per_token": weight_bytes(plan),
        "memory": {
            "file": file_bytes,
            "kv": kv,
            "activations": activations,
            "total": file_bytes + kv + activations,
            "step_tokens": tokens,
        },
        "export": {
            "disk": file_bytes,
            "peak_anonymous_bytes": _export_peaks(
                loaded,
                planned,
                recipe,
                max(first.nbytes + second.nbytes for first, second in pairwise(specs)),
            ),
        },
    }


def _rows(loaded: Loaded, planned: Planned, recipe: Recipe, backend: Backend) -> list[WeightRow]:
    shapes = planned.shapes
    tied = shared_parameters(loaded.checkpoint.config)
    stored = stored_formats(loaded.checkpoint, recipe, tied)
    sources = shared(loaded.checkpoint.stored_as, tied)
    inexact = shared(loaded.checkpoint.inexact, tied)
    rows: list[WeightRow] = []
    for weight in {weight.tensor: weight for weight in planned.lowered.plan.weights}.values():
        parts: list[WeightRow] = []
        for part in planned.lowered.parts[weight.tensor]:
            shape = shapes[part]
            size = (
                4 * prod(shape)
                if weight.format == RAW_F32
                else backend.packed_bytes(weight.format, *shape)
            )
            unchanged = weight.format == stored.get(part) and part not in inexact
            parts.append(
                WeightRow(
                    part,
                    weight.tensor,
                    weight.format.name,
                    shape,
                    size,
                    source=sources.get(part),
                    outcome="unchanged" if unchanged else None,
                )
            )
        rows += [stack_row(weight, parts, None)] if len(weight.shape) == 3 else parts
    return rows


def _export_peaks(
    loaded: Loaded, planned: Planned, recipe: Recipe, largest: int
) -> dict[str, int] | None:
    """Return about the anonymous memory of an export: this process, which has made the same plan,
    and what packing and comparing logits take. ``largest`` bytes have two neighbouring tensors."""
    now = anonymous_bytes()
    if now is None:
        return None
    if recipe.verify and has_extra("export"):
        now += _PYTORCH
    plan = planned.lowered.plan
    if any(path.suffix in _DECODED for path in loaded.sources.paths):
        largest += 4 * max(prod(shape) for shape in loaded.checkpoint.shapes.values())
    mixed = [name for name, turn in planned.rotations.turns.items() if turn.rows is not None]
    largest += 4 * max((prod(planned.shapes[name]) for name in mixed), default=0)  # as a whole
    peaks = {"export": now + largest + _PACK_CHUNKS * 4 * CHUNK_ELEMENTS}
    if recipe.verify:
        logits = 4 * verified_positions(plan.context) * plan.vocab
        peaks["verify"] = now + _VERIFY_LOGITS * logits
    return peaks
