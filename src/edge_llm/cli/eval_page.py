"""``edge-llm eval --html``: one program or several, as a page of charts."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import human_bytes, say
from edge_llm.cli.html import command_of, machine_facts, write_page

if TYPE_CHECKING:
    from edge_llm.charts.chart import Chart
    from edge_llm.program.file import Program
    from edge_llm.runner.evaluation.quality import Estimate, Quality

_LAYER = re.compile(r"\blayers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A program on the page: its file, scheme, sizes and figures. ``noise`` has decibels by layer
    for each kind of weight that was rounded, ``errors`` the difference from the reference after
    each layer (none without a reference)."""

    name: str
    scheme: str
    file_bytes: int
    bits: float
    quality: Quality
    noise: Mapping[str, Sequence[tuple[int, float]]]
    errors: Sequence[float]


def evaluated(
    program: Program,
    quality: Quality,
    ids: Sequence[int],
    reference: Program | None,
    *,
    threads: int,
) -> Evaluated:
    """Return what the page says about a program; its layers are compared with the reference's on
    the first tokens of the text.

    Raises:
        RequestError: the reference has other layers.
        NativeError, CapacityError: the native backend cannot run the programs.
    """
    from edge_llm.runner.evaluation.layers import TOKENS, layer_errors, layer_outputs

    errors: list[float] = []
    if reference is not None:
        first = ids[: min(TOKENS, program.plan.context, reference.plan.context)]
        ours = layer_outputs(program, first, threads=threads)
        errors = layer_errors(ours, layer_outputs(reference, first, threads=threads))
    documents = program.documents
    return Evaluated(
        name=program.path.name,
        scheme=str(documents.recipe.get("scheme", "unknown scheme")),
        file_bytes=program.file_bytes,
        bits=float(documents.report["bits_per_weight"]),
        quality=quality,
        noise=_noise(documents.report["weights"]),
        errors=errors,
    )


def write_eval_page(
    arguments: argparse.Namespace, programs: Sequence[Evaluated], reference: str | None
) -> None:
    """Draw all charts and write the page to ``arguments.html``. ``reference`` is the reference's
    name.

    Raises:
        RequestError: the page cannot be written.
    """
    from edge_llm.charts.layers import error_by_layer, sqnr_by_layer
    from edge_llm.charts.page import page
    from edge_llm.charts.quality import Sized, quality_by_size
    from edge_llm.charts.windows import by_window

    names = _told_apart(programs)
    figure = "perplexity" if reference is None else "KL divergence, nats"
    sized = [
        Sized(name, program.bits, program.file_bytes, found.value, found.error)
        for name, program in zip(names, programs, strict=True)
        for found in [_figure(program.quality)]
    ]
    charts: list[Chart] = [quality_by_size(sized, figure)]
    notes = []
    errors = {name: program.errors for name, program in zip(names, programs, strict=True)}
    if reference is not None:
        charts.append(error_by_layer(errors, reference))
    else:
        notes.append("Error by layer needs --reference: a program to measure the distance from.")
    for index, (name, program) in enumerate(zip(names, programs, strict=True)):
        if program.noise:
            charts.append(sqnr_by_layer(program.noise, name, key=f"sqnr-{index}"))
        else:
            notes.append(f"{name}: no weight of a layer was rounded when it was made.")
    windows = {
        name: _windows(program.quality) for name, program in zip(names, programs, strict=True)
    }
    charts.append(by_window(windows, figure))
    title = (
        f"Quality of {' and '.join(names)}"
        if len(names) < 3
        else f"Quality of {len(names)} programs"
    )
    text = page(
        title,
        facts=_facts(arguments, programs, names, reference),
        command=command_of(arguments),
        charts=charts,
        notes=notes,
    )
    write_page(arguments.html, text)
    say(f"wrote {arguments.html}")


def _told_apart(programs: Sequence[Evaluated]) -> list[str]:
    """Return names that differ, also where files in different folders are called the same."""
    names: list[str] = []
    for program in programs:
        name, number = program.name.removesuffix(".edge"), 2
        while name in names:
            name, number = f"{program.name.removesuffix('.edge')} ({number})", number + 1
        names.append(name)
    return names


def _figure(quality: Quality) -> Estimate:
    return quality.perplexity if quality.divergence is None else quality.divergence.mean


def _windows(quality: Quality) -> tuple[float, ...]:
    if quality.divergence is None:
        return quality.window_perplexities
    return quality.divergence.window_means


def _facts(
    arguments: argparse.Namespace,
    programs: Sequence[Evaluated],
    names: Sequence[str],
    reference: str | None,
) -> list[tuple[str, str]]:
    from edge_llm.native import default_threads

    facts = [
        (name, f"{program.scheme}, {human_bytes(program.file_bytes)}, perplexity "
         f"{program.quality.perplexity.value:.4g}")
        for name, program in zip(names, programs, strict=True)
    ]  # fmt: skip
    if reference is not None:
        facts.append(("reference", reference))
    scored = programs[0].quality
    half = ", second halves" if arguments.second_half else ""
    return [
        *facts,
        (
            "text",
            f"{Path(arguments.text).name}: {scored.windows} windows of {arguments.window} tokens"
            f"{half}, {scored.tokens:,} scored",
        ),
        *machine_facts(),
        ("threads", str(arguments.threads or default_threads())),
        ("backend", arguments.backend),
    ]


def _noise(weights: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return layers and decibels of the weights that were rounded, by their kind."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in weights:
        layer = _LAYER.search(row["name"])
        ratio = row.get("sqnr_db")
        if layer is None or ratio is None:
            continue
        kind = row["name"].removesuffix(".weight").rpartition(".")[2]
        found.setdefault(kind, []).append((int(layer[1]), float(ratio)))
    return found
