"""Charts of the loss from layer to layer: of activations beside a reference, and of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from edge_llm.charts.chart import Chart, label
from edge_llm.charts.style import MARKERS, SERIES, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def error_by_layer(errors: Mapping[str, Sequence[float]], reference: str) -> Chart:
    """Return the relative error of what leaves each layer, a line for each program.

    ``errors`` has for each program, by layer, the norm of the difference from ``reference`` as a
    share of the norm of the reference."""
    deepest = {name: values[-1] for name, values in errors.items() if values}
    description = (
        f"The difference from {reference} after each layer, as a share of it. "
        + " ".join(f"{name} ends at {100 * value:.2g} %." for name, value in deepest.items())
    )
    lines = {
        name: list(enumerate(100 * value for value in values)) for name, values in errors.items()
    }
    return _chart(
        lines,
        key="error-layers",
        title="Error by layer",
        description=description,
        what="difference, % of the reference",
        unit="%",
    )


def sqnr_by_layer(
    kinds: Mapping[str, Sequence[tuple[int, float]]], program: str, *, key: str = "sqnr"
) -> Chart:
    """Return the signal to quantization noise of a program's weights, a line for each kind of
    weight: layers and decibels, at least one. ``key`` is the chart's, of several on one page."""
    every = [(ratio, kind, layer) for kind, line in kinds.items() for layer, ratio in line]
    ratio, kind, layer = min(every)
    return _chart(
        kinds,
        key=key,
        title=f"Weights: signal to noise by layer, {label(program)}",
        description=f"Decibels for each kind of weight by layer, more is better. The lowest is "
        f"{kind} of layer {layer} with {ratio:.1f} dB.",
        what="signal to noise, dB",
        unit="dB",
        bottom=None,
    )


def _chart(
    lines: Mapping[str, Sequence[tuple[int, float]]],
    *,
    key: str,
    title: str,
    description: str,
    what: str,
    unit: str,
    bottom: float | None = 0,
) -> Chart:
    paint = _painter(lines, what, bottom)
    columns = [dict(line) for line in lines.values()]
    layers = sorted({layer for column in columns for layer in column})
    rows = tuple((layer, *(column.get(layer) for column in columns)) for layer in layers)
    head = ("layer", *(f"{name}, {unit}" for name in lines))
    height = 230 + 17 * -(-len(lines) // 2)
    svg = draw(paint, key=key, title=title, description=description, height=height)
    return Chart(key, title, description, svg, head, rows)


def _painter(
    lines: Mapping[str, Sequence[tuple[int, float]]], what: str, bottom: float | None
) -> Callable[[Figure], None]:
    def paint(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        for index, (name, line) in enumerate(lines.items()):
            axes.plot(
                [layer for layer, _ in line],
                [value for _, value in line],
                color=SERIES[index % len(SERIES)],
                marker=MARKERS[index % len(MARKERS)],
                ms=4,
                label=label(name),
            )
        if bottom is not None:
            axes.set_ylim(bottom=bottom)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer")
        axes.set_title(what)
        columns = 2 if max(map(len, lines)) <= 18 else 1
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns)

    return paint
