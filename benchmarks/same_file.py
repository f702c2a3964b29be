"""A GGUF file in edge-llm beside the same file in llama.cpp, in turn.

    python benchmarks/same_file.py FILE.gguf [--program FILE.edge] [--threads 2] [--rounds 5]

Our program is exported with the default recipe, which keeps the file's own integers where it holds
them, unless one is given. llama.cpp is the peer of `peers.py`, in its own environment. Prints a
table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from comparison import CELLS, busy_share
from document import table, where
from process import EngineProcess
from registry import CONTEXT, HERE, PEERS

import edge_llm
from edge_llm.export.recipes.recipe import Recipe


def engine(python: str, script: str, file: Path, threads: int) -> EngineProcess:
    """Start a worker on a file, and warm it up."""
    command = [python, str(HERE / script), str(file), "--threads", str(threads)]
    started = EngineProcess([*command, "--context", str(CONTEXT)])
    started.ask("prefill", depth=0, tokens=64)
    started.ask("decode", depth=0, tokens=4)
    return started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--program", type=Path, help="made before by an export of the file")
    parser.add_argument("--llama-cpp", metavar="PYTHON", help="an interpreter that has llama_cpp")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    python = options.llama_cpp
    if python is None:
        PEERS["llama-cpp"].install()
        python = str(PEERS["llama-cpp"].python)
    share = busy_share()
    with tempfile.TemporaryDirectory() as folder:
        program = options.program or edge_llm.export(
            Recipe(model=str(options.file), verify=False), output=Path(folder) / "program.edge"
        )
        with (
            engine(sys.executable, "time_edge_llm.py", program, options.threads) as ours,
            engine(python, "time_llama_cpp.py", options.file, options.threads) as theirs,
        ):
            rows = []
            for cell in CELLS:
                seconds: tuple[list[float], list[float]] = ([], [])
                for side in (ours, theirs):
                    side.ask("fill", depth=cell.depth)
                for _ in range(min(options.rounds, 3) if cell.tokens == 2048 else options.rounds):
                    for side, times in zip((ours, theirs), seconds, strict=True):
                        answer = side.ask(cell.kind, tokens=cell.tokens, depth=cell.depth)
                        times.append(answer["seconds"])
                speeds = [cell.tokens / statistics.median(times) for times in seconds]
                ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
                rows.append([cell.title, *(f"{speed:.1f}" for speed in speeds), f"{ratio:.2f}"])
            versions = f"{ours.version} beside llama-cpp-python {theirs.version}"
        size, source = program.stat().st_size / 1e6, options.file.stat().st_size / 1e6
    print(f"{where('')} {versions}, {options.threads} threads; other processes took {share:.0%} of")
    print(f"the machine. The program has {size:.1f} MB, {options.file.name} {source:.1f} MB.\n")
    print(table(["", "edge-llm, tokens/s", "llama.cpp, tokens/s", "ratio"], rows))


if __name__ == "__main__":
    main()
