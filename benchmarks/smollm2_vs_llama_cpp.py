"""SmolLM2-135M: our 8da4w program beside llama.cpp on the public GGUF, interleaved in one run.

    python benchmarks/smollm2_vs_llama_cpp.py [--rounds 5] [--threads 2]

The peer is llama-cpp-python, compiled on this machine by its own installer into build/peers/.
Prints a Markdown table of medians and of the ratio's median over the rounds, beside the ceilings.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from ceilings import ceilings

from edge_llm import catalogue

ROOT = Path(__file__).resolve().parents[1]
PEER = "llama-cpp-python==0.3.36"
MODEL = "smollm2-135m"
WORK = ["--prompt-tokens", "512", "--decode-tokens", "128", "--depth", "0,1024", "--repeat", "3"]
Key = tuple[str, int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    gguf = catalogue.pull(MODEL)
    program = our_program()
    peer = peer_python()
    threads = ["--threads", str(options.threads)]
    ours = [sys.executable, "-m", "edge_llm.cli.main", "bench", "--model", program, "--json"]
    theirs = [str(peer), str(ROOT / "benchmarks/peers/time_llama_cpp.py"), str(gguf)]

    rounds = []
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        rounds.append((run([*ours, *threads, *WORK]), run([*theirs, *threads, *WORK])))

    limit = ceilings(options.threads)
    print(f"{platform.machine()}, {cpu_name()}, {options.threads} threads, {PEER}\n")
    print("| SmolLM2-135M | edge-llm 8da4w | llama.cpp Q4_1 | ratio | of the ceiling |")
    print("|---|---|---|---|---|")
    for key in rounds[0][0]:
        kind, tokens, depth = key
        mine = statistics.median(a[key]["tokens_per_second"] for a, _ in rounds)
        other = statistics.median(b[key]["tokens_per_second"] for _, b in rounds)
        ratio = statistics.median(
            a[key]["tokens_per_second"] / b[key]["tokens_per_second"] for a, b in rounds
        )
        unit, top = (
            ("gb_per_second", "read_gb_per_second")
            if kind == "decode"
            else ("gop_per_second", "int8_gop_per_second")
        )
        rate = statistics.median(a[key][unit] for a, _ in rounds)
        name = unit.split("_")[0].upper()
        print(
            f"| {kind} {tokens}, {depth} cached | {mine:.0f} tok/s | {other:.0f} tok/s "
            f"| {ratio:.2f} | {rate:.1f} of {limit[top]:.0f} {name}/s |"
        )


def run(command: list[str]) -> dict[Key, dict[str, Any]]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = json.loads(done.stdout)["rows"]
    return {(row["kind"], row["tokens"], row["depth"]): row for row in rows}


def our_program() -> str:
    for program in catalogue.list_programs():
        if program.name.startswith(f"{MODEL}-8da4w"):
            return str(program.path)
    command = [sys.executable, "-m", "edge_llm.cli.main", "export", "--model", MODEL]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def peer_python() -> Path:
    """The interpreter of the peer's environment, made on first use."""
    folder = ROOT / "build" / "peers" / "llama-cpp"
    python = folder / "bin" / "python"
    if not python.exists() or subprocess.call([python, "-c", "import llama_cpp"]) != 0:
        print(f"installing {PEER} (compiles for some minutes)", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
    return python


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")


if __name__ == "__main__":
    main()
