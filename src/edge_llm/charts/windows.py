"""The windows of a text one by one: how even a figure is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge_llm.charts.chart import Chart, label, spread
from edge_llm.charts.style import INK, MARKERS, SERIES, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def by_window(values: Mapping[str, Sequence[float]], figure_name: str) -> Chart:
    """Return a row of points for each program, one a window of text, and a line at its median. All
    have the same windows."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, found in enumerate(values.values()):
            axes.plot(
                found,
                [index] * len(found),
                color=SERIES[index % len(SERIES)],
                marker=MARKERS[index % len(MARKERS)],
                ls="",
                alpha=0.65,
            )
            middle = spread(found)[1]
            axes.plot([middle, middle], [index - 0.3, index + 0.3], color=INK, lw=1.5)
        axes.set_yticks(range(len(values)), ["\n".join(_wrapped(name)) for name in values])
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"each window: {figure_name}")

    key, title = "windows", "Window by window"
    described = []
    for name, found in values.items():
        low, middle, high = spread(found)
        described.append(f"{name}: median {middle:.4g}, from {low:.4g} to {high:.4g}.")
    description = f"A point for each window of the text: {figure_name}. {' '.join(described)}"
    rows = tuple((place, *found) for place, found in enumerate(zip(*values.values(), strict=True)))
    head = ("window", *(f"{name}, {figure_name}" for name in values))
    svg = draw(paint, key=key, title=title, description=description, height=70 + 52 * len(values))
    return Chart(key, title, description, svg, head, rows)


def _wrapped(name: str, width: int = 16) -> list[str]:
    """Return a name cut into lines that leave the picture its room."""
    shown = label(name)
    return [shown[begin : begin + width] for begin in range(0, len(shown), width)]
