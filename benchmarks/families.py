"""Models of 2026 beside llama.cpp, two threads and one: random weights of true shapes.

    python benchmarks/families.py             prepares what is missing, measures, documents
    python benchmarks/families.py --prepare   llama.cpp's environment, checkpoints, both's files
    python benchmarks/families.py --table     section and chart again, from the last run

A family that cannot be exported is reported as missing with the reason. Raw results:
build/bench/families.json; the speeds go to docs/data/families.json and docs/images/families.svg.
35 GB of disk, 22 of which stay taken: checkpoints are removed when all files are made of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import gguf

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import charts
from comparison import CELLS, OURS, Cell, compare
from document import replace_section, table
from peers import attempt, plans_of
from programs import FOLDER, MODELS, program
from registry import ENVIRONMENTS, PEERS
from tables import markdown, summary

from edge_llm.program.cost import decode_bytes, kv_bytes
from edge_llm.program.file import Program

FAMILIES = ["qwen3-30b-a3b", "gpt-oss-20b", "gemma3-1b", "qwen3.5-0.8b", "lfm2-350m"]
DECODE, PREFILL, CACHED = (CELLS[index] for index in (0, 1, 3))
SHOWN = (DECODE, PREFILL, CACHED)
PASSES = ((DECODE, CACHED), (PREFILL,))  # decode at both depths in the same rounds
BARS = {"decode": 1.3, "prefill": 2.0}
PEER = PEERS["llama-cpp"]
RAW = FOLDER / "families.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--models", default=",".join(FAMILIES), help="some of them; prints only")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement")
    options = parser.parse_args()
    models = options.models.split(",")
    if options.table:
        document(json.loads(RAW.read_text(encoding="utf-8")))
        return
    attempt(PEER.install, f"installing {PEER.name}", ENVIRONMENTS / f"{PEER.name}.failed")
    for model in models:
        attempt(lambda m=model: program(m), f"our program: {model}", failed(model))
        mark = PEER.folder(model).with_suffix(".failed")
        attempt(lambda m=model: PEER.make(m), f"{PEER.name}: {model}", mark)
        if not failed(model).exists() and not mark.exists():
            shutil.rmtree(FOLDER / model / "checkpoint", ignore_errors=True)
    if options.prepare:
        return
    ready = [model for model in models if not failed(model).exists()]
    plans = plans_of(ready, [PEER])
    results = compare(plans, rounds=options.rounds, quick=False, passes=PASSES)
    results["missing"] = {
        model: failed(model).read_text(encoding="utf-8").strip().splitlines()[-1]
        for model in models
        if model not in ready
    }
    for model, plan in zip(results["models"], plans, strict=True):
        model["bytes"] = {
            title: bytes_read(plan.engines[OURS][2], plan.engines[title][2])
            for title in plan.engines
        }
    if models == FAMILIES:
        RAW.write_text(json.dumps(results, indent=1), encoding="utf-8")
        document(results)
    print(section(results))


def failed(model: str) -> Path:
    """Return the file that has the reason why there is no program of ours."""
    return FOLDER / model / "program.failed"


def document(results: dict[str, Any]) -> None:
    """Write the section of docs/performance.md, its data and their chart."""
    data = f"{json.dumps(summary(results), indent=1)}\n"
    (charts.DATA / "families.json").write_text(data, encoding="utf-8")
    charts.main()
    replace_section("families", section(results))


def section(results: dict[str, Any]) -> str:
    missing = "".join(
        f"\n- Missing: {MODELS[model]}: {why}" for model, why in results["missing"].items()
    )
    parts = [
        "![Tokens a second of models of 2026, ours and llama.cpp's](images/families.svg)",
        markdown(results, SHOWN, bar),
        f"### Bytes a token\n\n{bandwidth(results)}",
    ]
    return "\n\n".join(parts) + missing


def bar(cell: Cell, model: str, threads: int) -> float:
    return BARS[cell.kind]


def bandwidth(results: dict[str, Any]) -> str:
    """Return the bytes that a token in decode reads, and their share of the bandwidth."""
    ceilings = {one["threads"]: one["bytes_per_second"] for one in results["ceilings"]}
    rows = []
    for model in results["models"]:
        for run in model["runs"]:
            for title, record in run["engines"].items():
                cells = []
                for cell in (DECODE, CACHED):
                    seconds = record["seconds"].get(cell.key)
                    size = model["bytes"][title][cell.title]
                    cells.append(f"{size / 1e6:.0f}")
                    if seconds:
                        rate = size * cell.tokens / statistics.median(seconds)
                        cells.append(f"{rate / ceilings[run['threads']]:.0%}")
                    else:
                        cells.append("-")
                rows.append([MODELS[model["model"]], title, str(run["threads"]), *cells])
    head = ["", "engine", "threads", "MB, empty cache", "of the bandwidth"]
    measured = ", ".join(f"{rate / 1e9:.1f} GB/s with {n}" for n, rate in ceilings.items())
    return (
        table([*head, "MB, 1,024 cached", "of the bandwidth"], rows)
        + "\nWeights that a token uses, of experts the chosen ones, and what it reads of keys, "
        f"values and other states. Measured bandwidth: {measured} threads. Where the share of the "
        f"slower engine is above {1 / BARS['decode']:.0%}, memory leaves no room for the bar at "
        "equal bytes."
    )


def bytes_read(ours: Path, file: Path) -> dict[str, int]:
    """Return the bytes that a token reads in either cell of decode, halfway through it. Of a GGUF
    they are its weights, and the states of our program ``ours``: both are float16."""
    opened = Program.open(ours)
    plan, kv_dtype = opened.plan, opened.documents.model.kv_dtype
    depths = {cell.title: cell.depth + cell.tokens // 2 for cell in (DECODE, CACHED)}
    if file == ours:
        return {title: decode_bytes(plan, depth, kv_dtype) for title, depth in depths.items()}
    weights = gguf_weights(file)
    return {title: weights + kv_bytes(plan, depth, "f16") for title, depth in depths.items()}


def gguf_weights(path: Path) -> int:
    """Return the bytes of weights that a token reads."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    used, count = (
        field.contents() if (field := reader.fields.get(f"{architecture}.{key}")) else 1
        for key in ("expert_used_count", "expert_count")
    )
    sizes = {tensor.name: tensor.n_bytes for tensor in reader.tensors}
    if "output.weight" in sizes:  # else the embedding is the head, too
        del sizes["token_embd.weight"]
    experts = sum(size for name, size in sizes.items() if "_exps." in name)
    return int(sum(sizes.values()) - experts + experts * used / count)


if __name__ == "__main__":
    main()
