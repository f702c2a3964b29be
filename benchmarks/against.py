"""This tree beside an older commit, in turn, on the judged shapes, with equal weight formats.

    python benchmarks/against.py COMMIT [--quick] [--models ...] [--threads 2,1] [--rounds 7]
    make bench-against COMMIT=... [ARGS=...]

Each side is its own sources, its own native build, and a program that its own exporter made with
RECIPE: symmetric int4 for all linears, int8 for embedding and head. ``--defaults`` adds this tree
with its default recipe. EDGE_LLM_ISA acts on all. Everything is kept in build/against/. Prints a
table in Markdown; raw seconds go to build/against/results.json.

Where the page cache holds a file, and what else was read from the last-level cache before, decide
several percent of what small models cost to read. So a measurement is one process alone, on a fresh
copy of its file, and the sides take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from comparison import CELLS, Cell, busy_share, say
from document import table, where
from process import EngineProcess
from programs import FOLDER, MODELS, ROOT, checkpoint, run
from registry import CONTEXT

AGAINST = FOLDER.parent / "against"
DEFAULT_MODELS = "llama3.2-1b,qwen3-0.6b,smollm2-135m"
# Fields that every version of Recipe has. The rule of the scales changes no speed: a quick one.
RECIPE = """\
scheme: 8da4w
group_size: 32
linear: i4g32
embedding: i8
head: i8
overrides: {"*.v_proj.*": i4g32}
scale_rule: affine
gate: null
verify: false
requantize: true
"""
BAR = 0.97  # of the older commit's speed
ASKED = 3  # times a process measures each thing; once what takes seconds
QUICK = ("decode, empty cache", "prefill 512")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the compared: the sources of a tree, and the folder of what is made from them."""

    title: str
    source: Path
    folder: Path
    recipe: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which an interpreter imports this tree and loads its core."""
        return {
            "PYTHONPATH": str(self.source / "src"),
            "EDGE_LLM_NATIVE": str(self.folder / "native" / "libedge_llm.so"),
        }

    def build(self) -> None:
        """Compile the core, as a release."""
        native = str(self.folder / "native")
        configure = ["cmake", "-S", str(self.source / "runner" / "native"), "-B", native]
        run([*configure, "-DCMAKE_BUILD_TYPE=Release"])
        run(["cmake", "--build", native, "--parallel", str(os.cpu_count())])

    def program(self, model: str, python: Path) -> Path:
        """Return the program file of a model; exported again if the exporter has changed."""
        path = self.folder / f"{model}{'' if self.recipe else '-default'}.edge"
        mark, digest = path.with_suffix(".digest"), self._exporter()
        if path.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == digest:
            return path
        source = checkpoint(model)
        say(f"{self.title}: exporting {model}")
        command = [str(python), "-m", "edge_llm.cli.main", "export", "--model", str(source)]
        run([*command, *self.recipe, "--output", str(path)], self.environment)
        mark.write_text(digest, encoding="utf-8")
        return path

    def engine(self, file: Path, python: Path, threads: int) -> EngineProcess:
        """Start the tree's own worker on a program."""
        script = self.source / "benchmarks" / "peers" / "time_edge_llm.py"
        command = [str(python), str(script), str(file)]
        command += ["--threads", str(threads), "--context", str(CONTEXT)]
        return EngineProcess(command, self.environment)

    def _exporter(self) -> str:
        """Return a digest of the files that decide what an export writes."""
        digest = hashlib.sha256(" ".join(self.recipe).encode())
        for folder in ("export", "llm", "src/edge_llm/program", "configs/recipes"):
            for path in sorted((self.source / folder).rglob("*")):
                if path.suffix in (".py", ".yaml"):
                    digest.update(path.read_bytes())
        return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit")
    parser.add_argument("--models", default=DEFAULT_MODELS, help=f"of {list(MODELS)}")
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--rounds", type=int, default=7, help="processes of each side")
    parser.add_argument("--defaults", action="store_true", help="also this tree's default recipe")
    parser.add_argument(
        "--quick", action="store_true", help="two measurements, two threads, four rounds"
    )
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.threads = 4, "2"
    cells = [cell for cell in CELLS if not options.quick or cell.title in QUICK]
    python = interpreter()
    sides = make_sides(options.commit, options.defaults)
    for side in sides:
        side.build()
    results: dict[str, Any] = {
        "where": where(os.environ.get("EDGE_LLM_ISA", "")),
        "others_share": busy_share(),
        "rows": [],
    }
    for model in options.models.split(","):
        files = {side: side.program(model, python) for side in sides}
        for threads in map(int, options.threads.split(",")):
            results["rows"] += measure(model, files, python, threads, cells, options.rounds)
    (AGAINST / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(markdown(results, sides))


def interpreter() -> Path:
    """Return a Python that has the libraries of this one, and no edge-llm of its own."""
    folder = AGAINST / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, symlinks=True, with_pip=False)
    libraries = [path for path in sys.path if path.endswith("-packages")]
    [packages] = folder.glob("lib/python*/site-packages")
    # Lines of a .pth are added to sys.path, but the .pth files in there, ours among them, not read.
    (packages / "libraries.pth").write_text("\n".join(libraries) + "\n", encoding="utf-8")
    return python


def make_sides(commit: str, defaults: bool) -> list[Side]:
    """Return the older commit, whose sources are unpacked, and this tree once or twice."""
    name = run(["git", "rev-parse", "--short=12", "--verify", f"{commit}^{{commit}}"]).strip()
    old = AGAINST / name
    if not (old / "tree").is_dir():
        partial = old / "partial"
        partial.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(
            ["git", "archive", name], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", str(partial)], input=archive.stdout, check=True)
        partial.rename(old / "tree")
    recipe = AGAINST / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    equal, here = ("--recipe", str(recipe)), AGAINST / "here"
    here.mkdir(exist_ok=True)
    sides = [Side(name, old / "tree", old, equal), Side("this tree", ROOT, here, equal)]
    return [*sides, Side("this tree, default recipe", ROOT, here, ())] if defaults else sides


def measure(
    model: str, files: dict[Side, Path], python: Path, threads: int, cells: list[Cell], rounds: int
) -> list[dict[str, Any]]:
    """Return a row for each measurement: seconds of every side, those of all its rounds."""
    seconds: dict[str, dict[str, list[float]]] = {
        cell.title: {side.title: [] for side in files} for cell in cells
    }
    versions = {}
    for number in range(rounds):
        # There and back, so that a machine that slows down or speeds up favours nobody.
        for side in list(files)[:: -1 if number % 2 else 1]:
            with fresh_copy(files[side]) as copy, side.engine(copy, python, threads) as engine:
                versions[side.title] = engine.version
                engine.ask("prefill", depth=0, tokens=64)  # warms up
                engine.ask("decode", depth=0, tokens=16)
                for cell in cells:
                    engine.ask("fill", depth=cell.depth)
                    for _ in range(1 if cell.tokens == 2048 else ASKED):
                        answer = engine.ask(cell.kind, tokens=cell.tokens, depth=cell.depth)
                        seconds[cell.title][side.title].append(answer["seconds"])
    rows = [
        {
            "model": model,
            "threads": threads,
            "cell": cell.title,
            "tokens": cell.tokens,
            "seconds": seconds[cell.title],
            "bytes": {side.title: os.path.getsize(file) for side, file in files.items()},
            "versions": versions,
        }
        for cell in cells
    ]
    for row in rows:
        say(f"{model}, {threads} threads, {row['cell']}: {_ratios(row)}")
    return rows


@contextlib.contextmanager
def fresh_copy(file: Path) -> Iterator[Path]:
    """Give a copy of ``file`` that the page cache holds in huge pages, as after an export."""
    copy = file.with_suffix(".copy.edge")
    with open(file, "rb") as source, open(copy, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
        os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with open(copy, "rb") as source:
        mapping = mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ)
        mapping.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, len(mapping), mmap.PAGESIZE):
            mapping[start]
        mapping.close()
    try:
        yield copy
    finally:
        copy.unlink()


def _ratios(row: dict[str, Any]) -> dict[str, float]:
    """Return how many times faster than the older commit the others are: the ratio of medians.
    Rounds of different files are no pairs."""
    old, *others = row["seconds"]
    before = statistics.median(row["seconds"][old])
    return {title: before / statistics.median(row["seconds"][title]) for title in others}


def markdown(results: dict[str, Any], sides: list[Side]) -> str:
    old, new, *defaults = [side.title for side in sides]
    head = ["", "threads", "", f"{old}, tokens/s", "this tree", "ratio", "rounds"]
    head += [f"{title}, ratio" for title in defaults]
    rows = []
    for row in results["rows"]:
        speeds = {title: row["tokens"] / statistics.median(row["seconds"][title])
                  for title in (old, new)}  # fmt: skip
        every = [a / b for a, b in zip(row["seconds"][old], row["seconds"][new], strict=True)]
        ratios = _ratios(row)
        rows.append(
            [
                MODELS[row["model"]],
                str(row["threads"]),
                row["cell"],
                *(f"{speed:.1f}" for speed in speeds.values()),
                f"{ratios[new]:.3f} ({'pass' if ratios[new] >= BAR else 'miss'})",
                f"{min(every):.2f} to {max(every):.2f}",
                *(f"{ratios[title]:.3f}" for title in defaults),
            ]
        )
    sizes = {row["model"]: row["bytes"] for row in results["rows"]}
    versions = {v for row in results["rows"] for v in row["versions"].values()}
    parts = [
        f"{results['where']} {', '.join(sorted(versions))}. Other processes took "
        f"{results['others_share']:.0%} of the machine. Ratios are of the median tokens a "
        f"second over all rounds (bar {BAR}); equal formats (int4 linears, int8 "
        "head).\n",
        table(head, rows),
    ]
    for model, found in sizes.items():
        listed = ", ".join(f"{title} {size / 1e6:.1f} MB" for title, size in found.items())
        parts.append(f"- {MODELS[model]}: {listed}")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
