"""Memory against the length of the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_llm.charts.chart import Chart
from edge_llm.charts.style import INK, MARKERS, MUTED, SERIES, draw, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MB = 1e6


@dataclass(frozen=True, slots=True)
class Memory:
    """The bytes that a program takes.

    Attributes:
        file: its file, whose pages are mapped.
        rest: what the process holds at most beside file and cache: activations, code, Python.
        contexts: the lengths of context to show, in tokens.
        caches: for each type of keys and values, the bytes of a cache at each of ``contexts``.
        own: the type that the program recommends, a key of ``caches``.
        measured: context and bytes of a run that was measured; None where it was not.
    """

    file: int
    rest: int
    contexts: Sequence[int]
    caches: Mapping[str, Sequence[int]]
    own: str
    measured: tuple[int, int] | None = None


def memory_by_context(memory: Memory) -> Chart:
    """Return file, activations and cache against context, a line for each type of keys and
    values."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        contexts = list(memory.contexts)
        floor = memory.file / _MB
        base = floor + memory.rest / _MB
        axes.fill_between(contexts, 0, floor, color=SERIES[7], alpha=0.35, lw=0, label="file")
        axes.fill_between(
            contexts, floor, base, color=SERIES[6], alpha=0.35, lw=0, label="activations, process"
        )
        for index, (dtype, sizes) in enumerate(memory.caches.items()):
            axes.plot(
                contexts,
                [base + size / _MB for size in sizes],
                color=SERIES[index],
                marker=MARKERS[index],
                ls="-" if dtype == memory.own else "--",
                label=f"with KV {dtype}{' (its own)' if dtype == memory.own else ''}",
            )
        if memory.measured is not None:
            context, size = memory.measured
            axes.plot(
                [context], [size / _MB], color=INK, marker="*", ms=11, ls="", label="measured peak"
            )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("context, tokens")
        axes.set_title("memory, MB")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
        axes.tick_params(colors=MUTED)
        legend(axes, columns=2, above=1.1)

    key, title = "memory", "Memory against context"
    longest = memory.contexts[-1]
    together = {
        dtype: [memory.file + memory.rest + size for size in cache]
        for dtype, cache in memory.caches.items()
    }
    described = ", ".join(
        f"{sizes[-1] / _MB:,.0f} MB with KV {dtype}" for dtype, sizes in together.items()
    )
    description = (
        f"The file takes {memory.file / _MB:,.0f} MB and the process at most "
        f"{memory.rest / _MB:,.0f} MB beside; with keys and values of {longest:,} tokens they are "
        f"together {described}."
    )
    rows: list[tuple[object, ...]] = [
        (context, *(size / _MB for size in sizes))
        for context, *sizes in zip(memory.contexts, *together.values(), strict=True)
    ]
    if memory.measured is not None:
        context, size = memory.measured
        own = [size / _MB if dtype == memory.own else None for dtype in memory.caches]
        rows.append((f"{context:,}, measured", *own))
    head = ("context", *(f"KV {dtype}, MB" for dtype in memory.caches))
    svg = draw(paint, key=key, title=title, description=description, height=290)
    return Chart(key, title, description, svg, head, tuple(rows))
