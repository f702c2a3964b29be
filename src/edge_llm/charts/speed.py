"""Speed against the tokens in the cache, and against threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_llm.charts.chart import Chart, spread
from edge_llm.charts.style import MARKERS, SERIES, draw, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Speed:
    """One measurement: ``kind`` ("prefill" or "decode") of ``tokens`` tokens after ``depth`` cached
    ones, and the seconds of every repeat, at least one."""

    kind: str
    tokens: int
    depth: int
    threads: int
    seconds: tuple[float, ...]

    @property
    def spread(self) -> tuple[float, float, float]:
        """Return the tokens a second of the slowest repeat, the median one and the fastest."""
        fastest, middle, slowest = spread(self.seconds)
        return self.tokens / slowest, self.tokens / middle, self.tokens / fastest


def speed_by_depth(speeds: Sequence[Speed]) -> Chart:
    """Return decode and prefill against the tokens in the cache, a line for each number of threads
    (and of prompt tokens)."""
    return _chart(
        speeds,
        key="speed-depth",
        title="Speed against the tokens in the cache",
        across="tokens in the cache",
        place=lambda speed: speed.depth,
        name=lambda speed: _threads(speed.threads),
    )


def speed_by_threads(speeds: Sequence[Speed]) -> Chart:
    """Return decode and prefill against threads, a line for each depth of the cache (and number of
    prompt tokens)."""
    return _chart(
        speeds,
        key="speed-threads",
        title="Speed against threads",
        across="threads",
        place=lambda speed: speed.threads,
        name=lambda speed: f"{speed.depth:,} cached",
    )


def _chart(
    speeds: Sequence[Speed],
    *,
    key: str,
    title: str,
    across: str,
    place: Callable[[Speed], int],
    name: Callable[[Speed], str],
) -> Chart:
    kinds = list(dict.fromkeys((speed.kind, speed.tokens) for speed in speeds))
    kinds.sort(key=lambda kind: (kind[0] != "decode", kind[1]))

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(kinds), 1, squeeze=False)[:, 0]
        for axes, (kind, tokens) in zip(panels, kinds, strict=True):
            chosen = [speed for speed in speeds if (speed.kind, speed.tokens) == (kind, tokens)]
            _lines(axes, chosen, place, name)
            axes.set_title(f"{kind} of {tokens:,} tokens, tokens/s")
        panels[-1].set_xlabel(across)

    rows = []
    for kind, tokens in kinds:
        for speed in speeds:
            if (speed.kind, speed.tokens) == (kind, tokens):
                low, middle, high = speed.spread
                cells = (kind, tokens, speed.depth, speed.threads)
                rows.append((*cells, middle, low, high, len(speed.seconds)))
    description = (
        f"A panel for each of {', '.join(f'{kind} {tokens}' for kind, tokens in kinds)}: medians "
        f"of tokens a second against {across}, the bars from the slowest to the fastest repeat."
    )
    svg = draw(paint, key=key, title=title, description=description, height=20 + 165 * len(kinds))
    head = ("kind", "tokens", "cached", "threads", "median /s", "slowest", "fastest", "repeats")
    return Chart(key, title, description, svg, head, tuple(rows))


def _lines(
    axes: Axes,
    speeds: Sequence[Speed],
    place: Callable[[Speed], int],
    name: Callable[[Speed], str],
) -> None:
    names = list(dict.fromkeys(name(speed) for speed in speeds))
    for index, wanted in enumerate(names):
        line = sorted((speed for speed in speeds if name(speed) == wanted), key=place)
        spreads = [speed.spread for speed in line]
        middles = [middle for _, middle, _ in spreads]
        axes.errorbar(
            [place(speed) for speed in line],
            middles,
            yerr=(
                [middle - low for low, middle, _ in spreads],
                [high - middle for _, middle, high in spreads],
            ),
            color=SERIES[index % len(SERIES)],
            marker=MARKERS[index % len(MARKERS)],
            capsize=3,
            elinewidth=1,
            label=wanted,
        )
    axes.set_xticks(sorted({place(speed) for speed in speeds}))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.08)
    if len(names) > 1:
        legend(axes, columns=min(4, len(names)), above=1.16)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"
