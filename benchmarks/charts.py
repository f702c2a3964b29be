"""The charts of README and of the pages of figures, from the committed results of the benchmarks.

    python benchmarks/charts.py

docs/data/performance.json (`benchmarks/peers.py run`) -> docs/images/speed.svg
docs/data/quality.json (`benchmarks/quality.py`) -> docs/images/quality.svg
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
FLOATS = 12  # bits per weight from which the quality of a program is that of floats


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
    """Return the divergence from the float program against bits per weight, and against the speed
    of decode where it was measured: a point a program of integers, ours and llama.cpp's."""
    programs = [row for row in results["programs"] if row["bits_per_weight"] < FLOATS]
    timed = all("decode" in program for program in programs)
    points = {
        "bits per weight": [program["bits_per_weight"] for program in programs],
        **(
            {"decode, times llama.cpp Q4_0": [program["decode"]["ratio"] for program in programs]}
            if timed
            else {}
        ),
    }

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(points), squeeze=False, sharey=True)[0]
        for axes, (what, values) in zip(panels, points.items(), strict=True):
            counts = {"edge-llm": 0, "llama.cpp": 0}
            for program, value in zip(programs, values, strict=True):
                engine = program["engine"]
                number = counts[engine]
                counts[engine] += 1
                axes.errorbar(
                    [value], [program["kl"]], yerr=[program["kl_error"]],
                    color=SERIES[list(counts).index(engine)], marker=MARKERS[number % len(MARKERS)],
                    ms=7, ls="", capsize=2, label=_named(program),
                )  # fmt: skip
            axes.set_yscale("log")
            axes.set_xlabel(what)
            axes.margins(0.12)
        panels[0].set_title("KL divergence from float32, nats a token; less is better")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2)

    described = "; ".join(
        f"{_named(program)}: {program['kl']:.3f} nats at {program['bits_per_weight']:.2f} bits"
        for program in programs
    )
    return draw_file(
        paint,
        key="quality",
        title=f"Quality beside size: {results['model']}",
        description=f"Less is better. {described}.",
        width=720,
        height=260 + 17 * (1 + len(programs)) // 2,
    )


def _named(program: dict[str, Any]) -> str:
    return str(
        program["title"] if program["engine"] == "llama.cpp" else f"edge-llm {program['title']}"
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
