"""How close programs stay to the float model, beside what llama.cpp makes of it: docs/quality.md.

    python benchmarks/quality.py          our schemes and llama.cpp's, made of one checkpoint
    python benchmarks/quality.py --grids  the types of llama.cpp's quantizer, the same file in both

    --measure quality|speed|nothing       one of the two alone, of the files that are there;
                                          the page again, from the figures that are there
    --only calibrated                     rows with this in their title; others stay as they are
    --resume                              rows that an interrupted run has not come to

`make bench-quality` does both. The first run compiles llama.cpp's tools
(peers/llama_cpp_tools.py). Figures of quality do not depend on what else the machine does, those of
speed do. Results are written row by row to docs/data/quality.json and quality-grids.json, from them
docs/quality.md and its charts (charts.py); what the bars say is printed too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "fidelity"))

import charts
import llama_cpp_tools
import pages
from document import where
from rows import JUDGE, KINDS, Row, grid_rows, main_rows, own_rows
from scoring import WINDOW, Reference
from sources import WORK, checkpoint, exported, own_file, text
from speed import decode, facts

Data = dict[str, Any]
# Whether to measure a row, by its title and those that are there.
Wanted = Callable[[str, Data], bool]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grids", action="store_true", help="the types of llama.cpp's quantizer")
    parser.add_argument("--measure", choices=("all", "quality", "speed", "nothing"), default="all")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this in their title")
    parser.add_argument("--resume", action="store_true", help="rows that are not there yet")
    parser.add_argument("--windows", type=int, default=10, help=f"of {WINDOW} tokens")
    parser.add_argument("--rounds", type=int, default=7, help="of each speed")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    file = charts.DATA / ("quality-grids.json" if options.grids else "quality.json")
    kept = options.only or options.resume or options.measure in ("speed", "nothing")
    data: Data = json.loads(file.read_text(encoding="utf-8")) if kept else {}
    scores = options.measure in ("all", "quality")
    if kept and scores and data["windows"] != options.windows:
        parser.error(f"the other rows are of {data['windows']} windows, not {options.windows}")

    def save() -> None:
        file.write_text(f"{json.dumps(data, indent=1)}\n", encoding="utf-8")

    if options.measure != "nothing":
        llama_cpp_tools.install()
    if scores:
        measure = grid_quality if options.grids else main_quality
        start = time.monotonic()

        def wanted(title: str, found: Data) -> bool:
            return options.only in title and not (options.resume and title in found)

        measure(data, options.windows, wanted, save)
        if not options.only:
            minutes = (time.monotonic() - start) / 60
            data["minutes"] = round(data.get("minutes", 0) + minutes)
    if options.measure in ("all", "speed"):
        (grid_speed if options.grids else main_speed)(data, options.rounds)
    save()
    pages.write()
    charts.main()
    print(pages.verdicts())


def main_quality(data: Data, windows: int, wanted: Wanted, save: Callable[[], None]) -> None:
    """Score what is made of the float checkpoint, then what runs SmolLM2's own file."""
    describe(data, windows)
    for key, model, rows in (
        ("programs", checkpoint, main_rows()),
        ("own", own_file, own_rows()),
    ):
        found = {row["title"]: row for row in data.get(key, [])}
        chosen = [row for row in rows if wanted(row.title, found)]
        if not chosen:
            continue
        reference = float_reference(model(), key, windows)
        for row in chosen:
            found[row.title] = found.get(row.title, {}) | scored(row, reference)
            data[key] = [found[one.title] for one in rows if one.title in found]
            save()
        reference.close()


def grid_quality(data: Data, windows: int, wanted: Wanted, save: Callable[[], None]) -> None:
    """Score each type of file in llama.cpp and in our programs."""
    describe(data, windows)
    reference = float_reference(checkpoint(), "programs", windows)
    found = {row["type"]: row for row in data.get("types", [])}
    for kind in KINDS:
        if not wanted(kind, found):
            continue
        sides = {side: scored(row, reference) for side, row in grid_rows(kind).items()}
        found[kind] = found.get(kind, {}) | {"type": kind, **sides}
        data["types"] = [found[one] for one in KINDS if one in found]
        save()
    reference.close()


def describe(data: Data, windows: int) -> None:
    today = datetime.date.today().isoformat()
    data["model"] = "SmolLM2-135M with its channels scaled, in float32"
    data |= {"date": today, "where": where(), "windows": windows, "window": WINDOW}


def float_reference(model: Path, name: str, windows: int) -> Reference:
    program = exported(model, f"{name}-fp32", {"scheme": "fp32"})
    return Reference(program, text(), windows, WORK)


def scored(row: Row, reference: Reference) -> Data:
    start = time.monotonic()
    path = row.make()
    made = round(time.monotonic() - start, 1)
    figures = {"title": row.title, "engine": row.engine, "bits_per_weight": round(row.bits(), 3)}
    figures |= reference.score(path)
    line = f"{row.title}: {figures['bits_per_weight']} bits, KL {figures['kl']}"
    print(f"{line} (made in {made} s, scored in {figures.pop('seconds')} s)", flush=True)
    return figures


def main_speed(data: Data, rounds: int) -> None:
    """Time what is made of the float checkpoint, all files in turn."""
    data["speed"] = facts() | {"where": where()}
    titles = {row["title"] for row in data["programs"]}
    files = {row.title: row.path for row in main_rows() if row.title in titles}
    found = decode(files, JUDGE, rounds)
    for row in data["programs"]:
        row["decode"] = found[row["title"]]


def grid_speed(data: Data, rounds: int) -> None:
    """Time each file in llama.cpp and in our programs, in turn."""
    data["speed"] = facts() | {"where": where()}
    for entry in data["types"]:
        rows = grid_rows(entry["type"])
        found = decode({side: row.path for side, row in rows.items()}, "llama_cpp", rounds)
        for side, speeds in found.items():
            entry[side]["decode"] = speeds
            print(f"{entry['type']}, {side}: {speeds}", flush=True)


if __name__ == "__main__":
    main()
