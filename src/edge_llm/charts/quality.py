"""Quality against size: the distance from a reference, or the perplexity, by bits per weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_llm.charts.chart import Chart, label
from edge_llm.charts.style import MARKERS, SERIES, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Sized:
    """A program: its name, the bits of a weight on average, the bytes of its file, and its figure
    with the standard error of it (None: unknown)."""

    name: str
    bits: float
    file_bytes: int
    value: float
    error: float | None


def quality_by_size(programs: Sequence[Sized], figure_name: str) -> Chart:
    """Return one point a program. ``figure_name`` is what is compared, less being better."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, program in enumerate(programs):
            axes.errorbar(
                [program.bits],
                [program.value],
                yerr=None if program.error is None else [program.error],
                color=SERIES[index % len(SERIES)],
                marker=MARKERS[index % len(MARKERS)],
                ms=8,
                ls="",
                capsize=3,
                clip_on=False,  # a point at zero is whole
                label=label(program.name),
            )
        highest = max(program.value + (program.error or 0) for program in programs)
        axes.set_xlim(0, 1.15 * max(program.bits for program in programs))
        axes.set_ylim(0, 1.15 * highest if highest > 0 else 1)
        axes.set_xlabel("bits per weight")
        axes.set_title(f"{figure_name}, less is better")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=1)

    key, title = "quality", "Quality against size"
    best = min(programs, key=lambda program: program.value)
    description = (
        f"A point for each program: {figure_name} against bits per weight, "
        f"with standard errors. The lowest is {best.name}: {best.value:.4g} at "
        f"{best.bits:.2f} bits."
    )
    rows = tuple(
        (program.name, program.bits, program.file_bytes / 1e6, program.value, program.error)
        for program in programs
    )
    head = ("program", "bits per weight", "file MB", figure_name, "standard error")
    height = 240 + 17 * len(programs)
    svg = draw(paint, key=key, title=title, description=description, height=height)
    return Chart(key, title, description, svg, head, rows)
