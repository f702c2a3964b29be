"""The look of all charts, and the way from a matplotlib figure to a small SVG.

A figure is drawn once, in stand-in colours; in the SVG they become variables of the style sheet, so
that one picture serves light and dark pages and paper. Text stays text, in the page's own font.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from edge_llm.charts.chart import printable
from edge_llm.extras import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 400  # units of the picture: about the pixels of a phone, so that text stays readable there
INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
SERIES = tuple(f"#0102{16 + index:02x}" for index in range(8))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    **{colour: f"--s{index}" for index, colour in enumerate(SERIES)},
}
# Light and dark; the series keep apart for people who see few colours, and each has a marker.
_LIGHT = {
    "--ink": "#1f2328",
    "--muted": "#59636e",
    "--grid": "#d8dee4",
    "--paper": "#ffffff",
    "--s0": "#0b62b8",
    "--s1": "#c8500a",
    "--s2": "#067a57",
    "--s3": "#a8327d",
    "--s4": "#7a6100",
    "--s5": "#5b4bb0",
    "--s6": "#3c8dab",
    "--s7": "#6b7280",
}
_DARK = {
    "--ink": "#e6edf3",
    "--muted": "#9da7b1",
    "--grid": "#30363d",
    "--paper": "#0d1117",
    "--s0": "#5aa9f7",
    "--s1": "#f28e4b",
    "--s2": "#3fc79a",
    "--s3": "#e58bc5",
    "--s4": "#d8b93c",
    "--s5": "#a79af0",
    "--s6": "#7fd0ea",
    "--s7": "#9aa4b2",
}
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_SETTINGS: Any = {  # matplotlib's own type for it lists every key
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.unicode_minus": False,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.edgecolor": GRID,
    "legend.facecolor": PAPER,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "svg.fonttype": "none",
    "svg.hashsalt": "edge-llm",  # the same numbers give the same file
    "text.color": INK,
    "text.parse_math": False,  # a name may have dollar signs
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def variables() -> str:
    """Return the style sheet that gives the colours their values: light, dark where the reader
    wants that, and light again on paper."""
    light, dark = (
        "".join(f"{name}:{value};" for name, value in values.items()) for values in (_LIGHT, _DARK)
    )
    return (
        f":root{{{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f"@media print{{:root{{{light}}}}}\n"
    )


def draw(
    paint: Callable[[Figure], None],
    *,
    key: str,
    title: str,
    description: str,
    height: int,
    width: int = WIDTH,
) -> str:
    """Return what ``paint`` puts on a figure of ``width`` by ``height`` units, as an ``<svg>``
    element for HTML; names in it begin with ``key``.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    return ElementTree.tostring(
        _picture(paint, key, title, description, (width, height)), encoding="unicode"
    )


def draw_file(
    paint: Callable[[Figure], None],
    *,
    key: str,
    title: str,
    description: str,
    height: int,
    width: int = WIDTH,
) -> str:
    """Return the same as `draw`, but as a file that stands alone: with its colours and a ground of
    its own, so that it can be read on any page.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    root = _picture(paint, key, title, description, (width, height))
    root.set("xmlns", _SVG)
    style = ElementTree.Element("style")
    style.text = f"{variables()}svg{{font-family:system-ui,-apple-system,sans-serif}}"
    ground = ElementTree.Element("rect", {"width": "100%", "height": "100%", "rx": "6"})
    ground.set("style", "fill: var(--paper)")
    root.insert(2, style)  # behind title and description, which come first
    root.insert(3, ground)
    return f"{ElementTree.tostring(root, encoding='unicode')}\n"


def legend(axes: Axes, *, columns: int, above: float = 1.0) -> None:
    """Put a legend above the axes, where it covers no data; ``above`` is its bottom, 1 the top of
    the axes."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, above),
        ncols=columns,
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.6,
        handletextpad=0.5,
    )


def _picture(
    paint: Callable[[Figure], None],
    key: str,
    title: str,
    description: str,
    size: tuple[int, int],
) -> ElementTree.Element:
    require_extra("charts", "drawing a chart")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with rc_context(_SETTINGS), warnings.catch_warnings():
        # A font that lacks a letter of a name: the reader's own font draws it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        paint(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _cleaned(buffer.getvalue(), key, printable(title), printable(description))


def _cleaned(text: str, key: str, title: str, description: str) -> ElementTree.Element:
    """Return matplotlib's SVG as an element that shares a page with others: no style sheet and no
    namespaces, ids of its own, colours as variables, and a title."""
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var({name})")
    text = re.sub(r"(font: [^';]*?)'DejaVu Sans'", r"\1system-ui, sans-serif", text)
    root = ElementTree.fromstring(text)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        name = element.attrib.pop("id", "")
        if name in used:
            element.set("id", f"{key}-{name}")
        if target := element.attrib.pop(_LINK, ""):
            element.set("href", f"#{key}-{target.removeprefix('#')}")
        if clip := element.get("clip-path"):
            element.set("clip-path", clip.replace("url(#", f"url(#{key}-"))
    for unwanted in ("width", "height", "version"):
        root.attrib.pop(unwanted, None)
    root.attrib |= {
        "role": "img",
        "aria-labelledby": f"{key}-title {key}-description",
        "stroke-linejoin": "round",
    }
    for place, (tag, words) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{key}-{'description' if place else tag}"})
        element.text = words
        root.insert(place, element)
    return root
