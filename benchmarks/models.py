"""Our programs alone: prefill and decode beside the machine's ceilings, time to the first token of
a fresh process, memory.

    python benchmarks/models.py [--models llama3.2-1b,smollm2-135m] [--threads 2,1] [--isas avx2]

Checkpoints and programs are made on first use in build/bench/. Writes its section of
docs/performance.md and build/bench/models.json; with --dry, prints only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

from document import replace_section, table, where
from programs import FOLDER, MODELS, ROOT, program, run

from edge_llm.program.cost import kv_bytes
from edge_llm.program.file import Program

CLI = [sys.executable, "-m", "edge_llm.cli.main"]
DECODED = 32
PREFILLS, DEPTHS = (128, 512, 2048), (0, 1024, 4096)
FIRST_TOKEN_BARS = {"llama3.2-1b": 0.4, "smollm2-135m": 0.25}  # seconds
RESIDENT_BAR = 60  # MB beyond the file and the keys and values in use
BANDWIDTH_BAR = 0.85  # of the 1B shape's decode with an empty cache
NEEDED = {"phi4-mini": (24, 10)}  # GB of disk and of memory to make it


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--isas", default="", help="names for EDGE_LLM_ISA; default: the best")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print, and write no document")
    options = parser.parse_args()
    results: dict[str, Any] = {"where": where(), "models": {}, "missing": {}}
    isas = options.isas.split(",")
    results["ceilings"] = [
        ceilings(int(threads), isa) for isa in isas for threads in options.threads.split(",")
    ]
    for model in options.models.split(","):
        print(model, file=sys.stderr, flush=True)
        try:
            check_room(model)
            path = str(program(model))
            results["models"][model] = {
                "file_bytes": os.path.getsize(path),
                "cache_bytes": cache_bytes(path),
                "first_token_seconds": first_token(path),
                "runs": [
                    bench(path, int(threads), isa, options.repeat)
                    for isa in isas
                    for threads in options.threads.split(",")
                ],
            }
        except (RuntimeError, OSError) as exc:
            results["missing"][model] = str(exc).strip().splitlines()[-1]
            print(f"{model}: {exc}", file=sys.stderr)
    text = markdown(results)
    if not options.dry:
        (FOLDER / "models.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        replace_section("models", text)
    print(text)


def check_room(model: str) -> None:
    """Check that a large model is there, or that there is room to make it.

    Raises:
        RuntimeError: it is not, and there is none.
    """
    disk, memory = NEEDED.get(model, (0, 0))
    if (FOLDER / model / "8da4w.edge").exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(FOLDER).free / 1e9
    if free < disk:
        raise RuntimeError(f"{free:.0f} GB of disk free, {disk} needed")
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    if available < memory:
        raise RuntimeError(f"{available:.0f} GB of memory free, {memory} needed")


def ceilings(threads: int, isa: str) -> dict[str, Any]:
    """Return what `edge_llm.native.ceilings` measures in a process of that instruction set."""
    script = (
        "import dataclasses, json; from edge_llm import native; "
        f"print(json.dumps(dataclasses.asdict(native.ceilings({threads}))))"
    )
    found: dict[str, Any] = json.loads(with_isa([sys.executable, "-c", script], isa))
    return found


def bench(path: str, threads: int, isa: str, repeat: int) -> dict[str, Any]:
    """Return rows of `edge-llm bench`: every prefill with an empty cache, decode at every depth."""
    common = [*CLI, "bench", "--model", path, "--json", "--threads", str(threads)]
    common += ["--repeat", str(repeat)]
    prefills = ",".join(map(str, PREFILLS))
    depths = ",".join(map(str, DEPTHS))
    prefill = json.loads(
        with_isa([*common, "--prompt-tokens", prefills, "--decode-tokens", "0"], isa)
    )
    decode = json.loads(
        with_isa(
            [*common, "--prompt-tokens", "0", "--decode-tokens", str(DECODED), "--depth", depths],
            isa,
        )
    )
    return {
        "threads": threads,
        "isa": prefill["isa"],
        "rows": prefill["rows"] + decode["rows"],
        "load_seconds": prefill["load_seconds"],
        "peak_rss_bytes": decode["peak_rss_bytes"],
    }


def with_isa(command: list[str], isa: str) -> str:
    return run(command, {"EDGE_LLM_ISA": isa} if isa else {})


def cache_bytes(path: str) -> int:
    """Return the bytes of keys and values of the longest text that `bench` decodes."""
    with Program.open(path) as opened:
        return kv_bytes(opened.plan, max(DEPTHS) + DECODED - 1, opened.documents.model.kv_dtype)


def first_token(path: str) -> float:
    """Return the seconds from the start of `edge-llm run` to the first byte of its answer,
    interpreter and imports included: the median of nine, after one that warms the page cache."""
    command = [*CLI, "run", "--model", path, "--raw", "--temperature", "0", "--max-tokens", "2"]
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        with subprocess.Popen(
            [*command, "The capital of France is"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None
            first = process.stdout.read(1)
            seconds.append(time.perf_counter() - start)
            process.stdout.read()
        if process.returncode or not first:
            raise RuntimeError(f"edge-llm run gave no answer: exit status {process.returncode}")
    return statistics.median(seconds[1:])


def markdown(results: dict[str, Any]) -> str:
    limits = {(row["isa"], row["threads"]): row for row in results["ceilings"]}
    listed = ", ".join(
        f"{isa}, {threads} threads: {limit['bytes_per_second'] / 1e9:.1f} GB/s, "
        f"{limit['operations_per_second'] / 1e9:.0f} GOP/s"
        for (isa, threads), limit in limits.items()
    )
    parts = [
        f"{results['where']} Ceilings (read bandwidth, int8): {listed}. "
        "Tokens a second; in brackets the share of the ceiling, of arithmetic for prefill and of "
        "bandwidth for decode.\n"
    ]
    head = ["", "threads", *(f"prefill {n}" for n in PREFILLS)]
    head += [f"decode at {n:,}" for n in DEPTHS]
    rows = []
    for model, found in results["models"].items():
        for measured in found["runs"]:
            limit = limits[measured["isa"], measured["threads"]]
            cells = [cell(row, limit) for row in measured["rows"]]
            rows.append([f"{MODELS[model]}, {measured['isa']}", str(measured["threads"]), *cells])
    parts.append(table(head, rows))
    head = ["", "first token of a fresh process, s", "load, s", "file MB", "peak RSS MB"]
    head += [f"of it beyond file and {max(DEPTHS):,} cached tokens, MB"]
    rows = []
    for model, found in results["models"].items():
        accounted = found["file_bytes"] + found["cache_bytes"]
        rest = found["runs"][0]["peak_rss_bytes"] - accounted
        rows.append(
            [
                MODELS[model],
                judged(found["first_token_seconds"], FIRST_TOKEN_BARS.get(model)),
                f"{found['runs'][0]['load_seconds']:.3f}",
                f"{found['file_bytes'] / 1e6:.0f}",
                f"{found['runs'][0]['peak_rss_bytes'] / 1e6:.0f}",
                judged(rest / 1e6, RESIDENT_BAR, ".0f"),
            ]
        )
    parts.append(table(head, rows))
    parts += [f"- Missing: {MODELS[model]}: {why}" for model, why in results["missing"].items()]
    parts.append(bandwidth_verdict(results, limits))
    return "\n".join(part for part in parts if part)


def cell(row: dict[str, Any], limit: dict[str, Any]) -> str:
    share = (
        row["gop_per_second"] * 1e9 / limit["operations_per_second"]
        if row["kind"] == "prefill"
        else row["gb_per_second"] * 1e9 / limit["bytes_per_second"]
    )
    return f"{row['tokens_per_second']:.1f} ({share:.0%})"


def judged(value: float, bar: float | None, spec: str = ".3f") -> str:
    if bar is None:
        return f"{value:{spec}}"
    return f"{value:{spec}} (bar {bar}: {'pass' if value <= bar else 'miss'})"


def bandwidth_verdict(results: dict[str, Any], limits: dict[Any, Any]) -> str:
    found = results["models"].get("llama3.2-1b")
    if found is None:
        return ""
    measured = found["runs"][0]
    row = next(row for row in measured["rows"] if row["kind"] == "decode" and row["depth"] == 0)
    limit = limits[measured["isa"], measured["threads"]]["bytes_per_second"]
    share = row["gb_per_second"] * 1e9 / limit
    verdict = "pass" if share >= BANDWIDTH_BAR else "miss"
    return (
        f"\nDecode of the {MODELS['llama3.2-1b']}, {measured['threads']} threads, reads "
        f"{share:.0%} of the measured bandwidth (bar {BANDWIDTH_BAR:.0%}: {verdict})."
    )


if __name__ == "__main__":
    main()
