"""The charts of the documentation show what docs/data holds, and that is what docs/performance.md
says."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
CELLS = slice(2, 6)  # the columns of a table that are speeds
CHARTS = sorted(path.name for path in (ROOT / "docs" / "images").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def charts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("charts", ROOT / "benchmarks" / "charts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / "data" / name).read_text("utf-8"))
    return found


def shown(svg: str) -> list[str]:
    """The texts of a picture, and the colours and lengths of its bars, apart from small
    differences between versions of matplotlib."""
    root = ElementTree.fromstring(svg)
    texts = [text for kind in ("title", "desc", "text") for text in _texts(root, kind)]
    for path in root.iter(f"{SVG}path"):
        if "fill: var(--s" in path.get("style", ""):
            ends = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", path.get("d", ""))]
            texts.append(f"{path.get('style')} {round((max(ends) - min(ends)) / 4)}")
    return texts


def _texts(root: ElementTree.Element, kind: str) -> list[str]:
    return [node.text or "" for node in root.iter(f"{SVG}{kind}")]


@pytest.mark.parametrize("image", CHARTS)
def test_a_chart_is_of_its_data(image: str, charts: ModuleType) -> None:
    name, make = charts.CHARTS[image]
    committed = (ROOT / "docs" / "images" / image).read_text("utf-8")
    assert shown(committed) == shown(make(data(name))), "run: python benchmarks/charts.py"


def test_every_speed_stands_in_its_chart(charts: ModuleType) -> None:
    texts = _texts(ElementTree.parse(ROOT / "docs" / "images" / "speed.svg").getroot(), "text")
    for model in data("performance.json")["models"]:
        for engine in model["engines"]:
            if engine["threads"] == charts.THREADS:
                for cell in charts.CELLS:
                    value = engine["per_second"][cell]
                    assert (f"{value:,.0f}" if value >= 100 else f"{value:.1f}") in texts


def test_the_chart_of_families_shows_every_speed(charts: ModuleType) -> None:
    results = data("performance.json")
    texts = _texts(ElementTree.fromstring(charts.families_svg(results)), "text")
    for model in results["models"]:
        assert model["title"] in texts
        for engine in model["engines"]:
            if engine["threads"] == charts.THREADS:
                value = engine["per_second"]["decode, 1,024 cached"]
                assert (f"{value:,.0f}" if value >= 100 else f"{value:.1f}") in texts


@pytest.mark.parametrize("image", CHARTS)
def test_an_image_is_small_and_alone(image: str) -> None:
    text = (ROOT / "docs" / "images" / image).read_text("utf-8")
    assert len(text) < 60_000
    assert "prefers-color-scheme:dark" in text
    assert "href=" not in re.sub(r'href="#[^"]*"', "", text)
    assert text.replace("http://www.w3.org/2000/svg", "").count("://") == 0
    assert "<script" not in text


def test_the_data_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    section = page.split("<!-- peers: made by the benchmark -->")[1].split("<!-- peers: end -->")[0]
    results = data("performance.json")
    assert section.strip().startswith(results["date"])
    for model in results["models"]:
        part = section.split(f"### {model['title']}\n")[1].split("\n### ")[0]
        lines = [line.strip("| ") for line in part.splitlines() if line.startswith("|")]
        head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in lines)
        assert len(rows) == len(model["engines"])
        for row, engine in zip(rows, model["engines"], strict=True):
            assert row[:2] == [engine["title"], str(engine["threads"])]
            cells = dict(zip(head[CELLS], row[CELLS], strict=True))
            for cell, text in cells.items():
                value = engine["per_second"].get(cell)
                if value is None:
                    assert text == "-"
                else:
                    # Both are rounded: the page's to whole numbers or tenths, the data's to four
                    # digits, so that they differ by half a last digit of each at most.
                    unit = 1.0 if value >= 100 else 0.1
                    assert abs(float(text.split()[0]) - value) <= 0.55 * unit + 1e-9


def test_a_machine_that_slows_down_changes_no_order_of_depths() -> None:
    """Depths of one round are measured side by side, and `kept` compares rounds with themselves."""
    code = ROOT / "benchmarks" / "peers"
    saved = list(sys.path)
    sys.path[:0] = [str(code), str(code.parent)]
    try:
        comparison = importlib.import_module("comparison")
        tables = importlib.import_module("tables")
    finally:
        sys.path[:] = saved
    asked: list[tuple[str, int]] = []

    class Slowing:
        """An engine whose machine takes a tenth longer with every request."""

        seconds = 0.01

        def __init__(self, name: str) -> None:
            self._name = name

        def ask(self, do: str, **values: Any) -> dict[str, Any]:
            if do == "fill":
                return {}
            asked.append((self._name, values["depth"]))
            Slowing.seconds *= 1.1
            return {"seconds": Slowing.seconds * (2 if values["depth"] else 1)}

    engines = {name: {"seconds": {}, "failed": {}} for name in (comparison.OURS, comparison.JUDGE)}
    processes = {name: Slowing(name) for name in engines}
    comparison._measure(comparison.PASSES[0], processes, engines, 5)
    depths = [depth for _, depth in asked]
    assert depths == [0, 0, 1024, 1024] * 5
    for record in engines.values():
        assert tables._kept(record["seconds"]) == f"{1 / (2 * 1.1**2):.0%}"
    assert set(sum(comparison.PASSES, ())) == set(comparison.CELLS)
