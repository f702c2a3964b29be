"""The time of a step, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_llm.charts.chart import Chart, label
from edge_llm.charts.style import PAPER, SERIES, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = len(SERIES) - 1  # operators with a colour of their own; the last colour is the others'
_OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Step:
    """One profiled step: its name, and the seconds of its parts, which add up to it."""

    name: str
    seconds: Mapping[str, float]


def time_by_operator(steps: Sequence[Step]) -> Chart:
    """Return a bar for each step, cut into the shares of its operators."""
    totals: dict[str, float] = {}
    for step in steps:
        whole = sum(step.seconds.values()) or 1.0
        for part, seconds in step.seconds.items():
            totals[part] = totals.get(part, 0.0) + seconds / whole
    ranked = sorted(totals, key=lambda part: -totals[part])
    shown = ranked if len(ranked) <= len(SERIES) else [*ranked[:_SHOWN], _OTHERS]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        begins = [0.0] * len(steps)
        places = range(len(steps))
        for index, part in enumerate(shown):
            widths = [_share(step, part, shown) for step in steps]
            axes.barh(
                places, widths, left=begins, height=0.62, label=label(part), color=SERIES[index],
                edgecolor=PAPER,
            )  # fmt: skip
            begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
        axes.set_yticks(places, [label(step.name).replace(" after", "\nafter") for step in steps])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the step")
        axes.grid(visible=False, axis="y")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)

    key, title = "operators", "A step's time by operator"
    description = "A bar for each step, cut into operators by their share of its time. " + " ".join(
        f"{step.name}: {part} takes {_share(step, part, shown):.0f} %."
        for step in steps
        for part in [max(step.seconds, key=lambda part: step.seconds[part])]
    )
    height = 70 + 17 * -(-len(shown) // 2) + 34 * len(steps)
    head, rows = _table(steps, ranked)
    svg = draw(paint, key=key, title=title, description=description, height=height)
    return Chart(key, title, description, svg, head, rows)


def _table(
    steps: Sequence[Step], parts: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[object, ...], ...]]:
    """Return head and rows: a row for each part, its time and share in each step."""
    head = ["operator"]
    for step in steps:
        head += [f"{step.name}, µs", "%"]
    rows = []
    for part in parts:
        row: list[object] = [part]
        for step in steps:
            seconds = step.seconds.get(part)
            whole = sum(step.seconds.values()) or 1.0
            row += [None, None] if seconds is None else [1e6 * seconds, 100 * seconds / whole]
        rows.append(tuple(row))
    return tuple(head), tuple(rows)


def _share(step: Step, part: str, shown: Sequence[str]) -> float:
    """Return the percentage of a part, or of all that are not shown by name."""
    whole = sum(step.seconds.values()) or 1.0
    if part != _OTHERS or part in step.seconds:
        return 100 * step.seconds.get(part, 0.0) / whole
    return 100 * sum(s for name, s in step.seconds.items() if name not in shown) / whole
