"""The charts of README and of docs/performance.md, from the committed results of the benchmarks.

    python benchmarks/charts.py

docs/data/performance.json (`benchmarks/peers.py run`) -> docs/images/speed.svg
docs/data/quality.json (`benchmarks/quality.py --sizes`) -> docs/images/quality.svg
docs/data/families.json (`benchmarks/families.py`) -> docs/images/families.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.charts.style import INK, MARKERS, MUTED, SERIES, draw_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "data"
IMAGES = ROOT / "docs" / "images"
CELLS = {"decode, empty cache": "decode", "prefill 512": "prefill of 512 tokens"}
THREADS = 2


def speed_svg(results: dict[str, Any]) -> str:
    """Return tokens a second of every engine, a panel for each model and kind of work."""
    models = results["models"]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(CELLS), len(models), squeeze=False)
        for row, (cell, what) in zip(panels, CELLS.items(), strict=True):
            for axes, model in zip(row, models, strict=True):
                _bars(axes, model, cell)
                axes.set_title(f"{model['title']}\n{what}", size=11)
                if axes is not row[0]:
                    axes.tick_params(labelleft=False)
        figure.supxlabel(
            f"tokens a second, {THREADS} threads; {results['date']}", size=10, color=MUTED
        )

    ours = [
        f"{model['title']}: edge-llm {_shown(_speeds(model, 'decode, empty cache')[0][1])} "
        f"tokens a second in decode"
        for model in models
    ]
    return draw_file(
        paint,
        key="speed",
        title="Speed beside other engines",
        description=f"Bars of tokens a second for each engine. {'; '.join(ours)}.",
        width=720,
        height=340,
    )


def families_svg(results: dict[str, Any]) -> str:
    """Return tokens a second of ours and of llama.cpp, a row of panels for each model."""
    models = results["models"]
    cells = {**CELLS, "decode, 1,024 cached": "decode after 1,024 tokens"}

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(models), len(cells), squeeze=False)
        for row, model in zip(panels, models, strict=True):
            for axes, (cell, what) in zip(row, cells.items(), strict=True):
                _bars(axes, model, cell)
                axes.set_title(f"{model['title']}\n{what}" if axes is row[0] else what, size=11)
                if axes is not row[0]:
                    axes.tick_params(labelleft=False)
        figure.supxlabel(
            f"tokens a second, {THREADS} threads; {results['date']}", size=10, color=MUTED
        )

    described = "; ".join(
        f"{model['title']}: "
        + ", ".join(
            f"{name} {_shown(speed)}" for name, speed in _speeds(model, "decode, empty cache")
        )
        for model in models
    )
    return draw_file(
        paint,
        key="families",
        title="Speed of models of 2026 beside llama.cpp",
        description=f"Bars of tokens a second for each engine. In decode: {described}.",
        width=720,
        height=60 + 125 * len(models),
    )


def quality_svg(results: dict[str, Any]) -> str:
    """Return the distance from the float32 program against bits per weight, a point a program."""
    programs = results["programs"]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        highest = max(program["kl"] for program in programs)
        labelled: list[tuple[float, float]] = []
        for index, program in enumerate(sorted(programs, key=lambda one: one["bits_per_weight"])):
            bits, kl, error = (program[key] for key in ("bits_per_weight", "kl", "kl_error"))
            axes.errorbar(
                [bits], [kl], yerr=[error], color=SERIES[index], marker=MARKERS[index], ms=8,
                ls="", capsize=3, clip_on=False,
            )  # fmt: skip
            near = [1 for x, y in labelled if bits - x < 6 and abs(kl - y) < highest / 6]
            labelled.append((bits, kl))
            axes.annotate(
                f"{program['title']}\n{bits:.2f} bits, {kl:.3f} nats",
                (bits, kl),
                textcoords="offset points",
                xytext=(10, 10 + 32 * len(near)),  # above the label of a point to the left
                size=10,
                color=SERIES[index],
            )
        axes.set_xlim(4, 1.35 * max(program["bits_per_weight"] for program in programs))
        axes.set_ylim(0, 1.25 * highest)
        axes.set_xlabel("bits per weight")
        axes.set_title(f"{results['model']}: KL divergence from float32, nats a token")

    described = "; ".join(
        f"{program['title']}: {program['kl']:.3f} nats at {program['bits_per_weight']:.2f} bits"
        for program in programs
    )
    return draw_file(
        paint,
        key="quality",
        title=f"Quality beside size: {results['model']}",
        description=f"Less is better. {described}.",
        width=560,
        height=280,
    )


def _bars(axes: Axes, model: dict[str, Any], cell: str) -> None:
    speeds = _speeds(model, cell)
    names = [name for name, _ in speeds]
    values = [value for _, value in speeds]
    colours = [SERIES[0] if name.startswith("edge-llm") else SERIES[7] for name in names]
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.7)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            _shown(value), (value, place), textcoords="offset points", xytext=(3, 0), va="center",
            size=10, color=INK,
        )  # fmt: skip
    axes.set_yticks(places, names, size=10)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.28 * max(values))


def _speeds(model: dict[str, Any], cell: str) -> list[tuple[str, float]]:
    """Return engines and tokens a second, ours first."""
    return [
        (engine["title"], engine["per_second"][cell])
        for engine in model["engines"]
        if engine["threads"] == THREADS and cell in engine["per_second"]
    ]


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


CHARTS = {
    "speed.svg": ("performance.json", speed_svg),
    "quality.svg": ("quality.json", quality_svg),
    "families.svg": ("families.json", families_svg),
}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for image, (data, make) in CHARTS.items():
        if not (DATA / data).exists():
            print(f"no {data}, so no {image}", file=sys.stderr)
            continue
        results = json.loads((DATA / data).read_text(encoding="utf-8"))
        (IMAGES / image).write_text(make(results), encoding="utf-8")
        print(IMAGES / image, file=sys.stderr)


if __name__ == "__main__":
    main()
