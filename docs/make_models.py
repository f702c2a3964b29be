"""Print docs/models.md with the table of the catalogue made again. `make docs` writes it, a test
compares."""

from __future__ import annotations

from pathlib import Path

from edge_llm import catalogue
from edge_llm.cli.prediction import Wanted, predict

PAGE = Path(__file__).with_name("models.md")
BEGIN, END = "<!-- catalogue: made by make docs -->\n", "<!-- end of catalogue -->\n"
DEVICES = ["raspberry-pi-5", "laptop-ddr5"]
HEAD = (
    *("name", "family", "parameters", "context", "licence", "download", "program", "memory"),
    *("Raspberry Pi 5", "laptop, DDR5"),
)


def page() -> str:
    """Return the page as it should be."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}{table()}{END}{after}"


def table() -> str:
    """Return a row for each model of the catalogue, the smallest first."""
    entries = sorted(catalogue.list_models(), key=lambda entry: (entry.parameters, entry.name))
    lines = [HEAD, ["---"] * 2 + ["--:"] * 2 + ["---"] + ["--:"] * 5, *map(row, entries)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def row(entry: catalogue.Entry) -> tuple[str, ...]:
    wanted = Wanted(entry.name, quant=None, group_size=None, kv_dtype=None, context=None)
    predicted = predict(wanted, DEVICES, 0)
    model = predicted["model"]
    decode = (device["decode"].get("0") for device in predicted["devices"])
    speeds = ("none" if speed is None else rounded(speed) for speed in decode)
    gate = ", gated" if entry.gated else ""
    return (
        f"`{entry.name}`",
        entry.family,
        large(entry.parameters),
        f"{entry.context:,}",
        f"[{entry.licence}]({entry.licence_url}){gate}",
        f"{large(entry.download_bytes)}B",
        f"{large(model['file_bytes'])}B",
        f"{large(model['memory_bytes'])}B",
        *speeds,
    )


def large(number: int) -> str:
    """Return a number with three figures, as 135 M or 1.24 G."""
    unit, letter = (1e9, "G") if number >= 0.9995e9 else (1e6, "M")
    return f"{rounded(number / unit, 3)} {letter}"


def rounded(number: float, figures: int = 2) -> str:
    """Return a number with so many figures."""
    text = f"{number:.{figures}g}"
    return text if "e" not in text else f"{float(text):.0f}"


if __name__ == "__main__":
    print(page(), end="")
