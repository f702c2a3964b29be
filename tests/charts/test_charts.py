"""The charts and the page: what stands in them, and that nothing foreign does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from edge_llm.charts.chart import Chart, label, number
from edge_llm.charts.layers import error_by_layer, sqnr_by_layer
from edge_llm.charts.memory import Memory, memory_by_context
from edge_llm.charts.operators import Step, time_by_operator
from edge_llm.charts.page import page
from edge_llm.charts.quality import Sized, quality_by_size
from edge_llm.charts.speed import Speed, speed_by_depth, speed_by_threads
from edge_llm.charts.style import draw_file
from edge_llm.charts.windows import by_window

HOSTILE = "</svg><script>alert(1)</script>&\"' $x_1$ \x00\x1b[31m\ud800 日本語 " + "long " * 20
SPEEDS = [
    Speed("decode", 128, depth, threads, (1.28 / threads, 1.6 / threads, 1.0 / threads))
    for depth in (0, 1024)
    for threads in (1, 2)
]
MEMORY = Memory(
    file=100_000_000,
    rest=60_000_000,
    contexts=[0, 4096, 8192],
    caches={"f16": [0, 94_000_000, 188_000_000], "i8": [0, 50_000_000, 100_000_000]},
    own="i8",
    measured=(4608, 230_000_000),
)


def charts(name: str) -> list[Chart]:
    return [
        speed_by_depth(SPEEDS),
        speed_by_threads(SPEEDS),
        time_by_operator([Step(name, {f"part {n}": 1e-6 * n for n in range(1, 12)})]),
        memory_by_context(MEMORY),
        quality_by_size([Sized(name, 5.5, 90, 0.3, 0.01), Sized("b", 32, 500, 0, None)], "KL"),
        error_by_layer({name: [0.01, 0.02], "other": [0.03, 0.04]}, name),
        sqnr_by_layer({"q_proj": [(0, 20.5), (2, 19.25)], name: [(0, 30.0)]}, name),
        by_window({name: [1.5, 2.5, 3.5], "other": [4.0, 5.0, 6.0]}, "perplexity"),
    ]


class Page(HTMLParser):
    """The elements of a document: names and attributes, the text of its tables, and whether every
    element that is open is closed again."""

    EMPTY = ("meta", "link", "br", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def drawn() -> list[Chart]:
    return charts(HOSTILE)


def whole(drawn: Sequence[Chart]) -> str:
    facts = [("machine", HOSTILE)]
    return page(HOSTILE, facts=facts, command=f"edge-llm {HOSTILE}", charts=drawn, notes=[HOSTILE])


def test_the_page_refers_to_nothing_outside(drawn: list[Chart]) -> None:
    text = whole(drawn)
    document = Page(text)
    tags = {tag for tag, _ in document.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "image", "foreignObject", "a"}
    for _, attributes in document.elements:
        assert not {"src", "xlink:href", "srcset", "data"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert "@font-face" not in text
    assert "://" not in text


def test_names_are_text(drawn: list[Chart]) -> None:
    text = whole(drawn)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "$x_1$" in text  # no formula
    assert not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff]", text)
    text.encode()


def test_ids_are_unique_and_references_meet_them(drawn: list[Chart]) -> None:
    text = whole(drawn)
    ids = [found["id"] for _, found in Page(text).elements if "id" in found]
    assert len(ids) == len(set(ids))
    named = [name for _, found in Page(text).elements if (name := found.get("aria-labelledby"))]
    used = {part for name in named for part in name.split()}
    used |= set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    assert used <= set(ids)


def test_each_picture_has_words_and_its_numbers(drawn: list[Chart]) -> None:
    document = Page(whole(drawn))
    pictures = [found for tag, found in document.elements if tag == "svg"]
    assert len(pictures) == len(drawn) == len(document.tables)
    for picture, chart, table in zip(pictures, drawn, document.tables, strict=True):
        assert picture["role"] == "img"
        assert picture["aria-labelledby"] == f"{chart.key}-title {chart.key}-description"
        assert "width" not in picture  # it fills the page
        assert len(table) == 1 + len(chart.rows)
        assert [[number(cell) for cell in row] for row in chart.rows] == table[1:]
        root = ElementTree.fromstring(chart.svg)
        assert [child.tag for child in root][:2] == ["title", "desc"]
        assert root[1].text


def test_colours_follow_the_reader(drawn: list[Chart]) -> None:
    text = whole(drawn)
    assert "prefers-color-scheme:dark" in text
    for chart in drawn:
        assert not re.search(r"#0102[0-9a-f]{2}", chart.svg)  # a stand-in left over
        assert "var(--s0)" in chart.svg
        assert "<style" not in chart.svg  # it would hold for the whole page
    known = set(re.findall(r"(--[a-z0-9]+):", text))
    assert set(re.findall(r"var\((--[a-z0-9]+)\)", text)) <= known


def test_the_numbers_are_those_given() -> None:
    assert speed_by_depth(SPEEDS).rows[1] == ("decode", 128, 0, 2, 200.0, 160.0, 256.0, 3)
    memory = memory_by_context(MEMORY)
    assert memory.head == ("context", "KV f16, MB", "KV i8, MB")
    assert memory.rows == (
        (0, 160.0, 160.0),
        (4096, 254.0, 210.0),
        (8192, 348.0, 260.0),
        ("4,608, measured", None, 230.0),
    )
    operators = time_by_operator([Step("a", {"x": 3e-6, "y": 1e-6}), Step("b", {"y": 2e-6})])
    assert operators.rows == (
        ("y", pytest.approx(1.0), pytest.approx(25), pytest.approx(2.0), pytest.approx(100)),
        ("x", pytest.approx(3.0), pytest.approx(75), None, None),
    )
    sqnr = sqnr_by_layer({"q_proj": [(0, 20.5), (2, 19.25)], "k_proj": [(0, 30.0)]}, "p")
    assert sqnr.rows == ((0, 20.5, 30.0), (2, 19.25, None))
    assert "q_proj of layer 2 with 19.2 dB" in sqnr.description
    assert error_by_layer({"p": [0.01, 0.02]}, "fp32").rows == ((0, 1.0), (1, 2.0))
    assert by_window({"p": [1.5, 2.5]}, "KL").rows == ((0, 1.5), (1, 2.5))


def test_points_stand_where_their_numbers_say() -> None:
    svg = ElementTree.fromstring(speed_by_depth(SPEEDS).svg)
    marks = [(float(use.get("x", "")), float(use.get("y", ""))) for use in svg.iter("use")]
    lines = [path.get("d", "") for path in svg.iter("path")]
    # One line a thread count goes from depth 0 to 1,024; that of two threads is twice as high.
    points = [
        [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)]
        for line in lines
    ]
    level = [line for line in points if len(line) == 2 and line[0][1] == line[1][1]]
    heights = sorted({line[0][1] for line in level if all(point in marks for point in line)})
    bottom = max(y for _, y in marks)
    assert len(heights) >= 2
    assert (bottom - heights[0]) == pytest.approx(2 * (bottom - heights[1]), rel=0.01)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (1234.5, "1,234"), (0.123456, "0.1235"), (1024, "1,024"), ("a\x07", "a\ufffd")],
)
def test_numbers(value: object, text: str) -> None:
    assert number(value) == text


def test_a_label_is_short() -> None:
    assert label("x" * 50) == "x" * 39 + "…"
    assert label("name\n") == "name\ufffd"


def test_a_name_with_an_underscore_is_in_the_legend() -> None:
    assert (
        "_hidden"
        in quality_by_size([Sized("_hidden", 4, 1, 0.1, None)], "KL").svg.split("/desc")[1]
    )


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0]])
def test_figures_without_extent(values: list[float]) -> None:
    """A perfect program, and one window of text: neither is an error."""
    by_window({"p": values}, "KL")
    quality_by_size([Sized("p", 32, 1, 0.0, 0.0)], "KL")
    error_by_layer({"p": values}, "p")
    speed_by_depth(SPEEDS[:1])


def test_a_file_stands_alone() -> None:
    def paint(figure: object) -> None:
        figure.subplots().plot([1, 2], color="#010210")

    def made() -> str:
        return draw_file(paint, key="k", title="T <&>", description="D", height=100)

    root = ElementTree.fromstring(made())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{*}title").text == "T <&>"
    assert "prefers-color-scheme:dark" in (root.find("{*}style").text or "")
    assert made() == made()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_llm import extras
    from edge_llm.errors import MissingDependencyError

    find: Callable[[str], object] = extras.find_spec
    monkeypatch.setattr(
        extras, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    with pytest.raises(MissingDependencyError, match="matplotlib") as caught:
        speed_by_depth(SPEEDS)
    assert "pip install" in (caught.value.hint or "")
