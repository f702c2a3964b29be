"""Our programs beside llama.cpp, ONNX Runtime GenAI, OpenVINO GenAI and ExecuTorch.

    python benchmarks/peers.py install [PEER ...]   an environment each, in build/peers/
    python benchmarks/peers.py prepare [PEER ...]   checkpoints, converted models, in build/bench/
    python benchmarks/peers.py run [--quick]        measures, writes docs/performance.md
    python benchmarks/peers.py table                the tables again, from the last run
    python benchmarks/peers.py all [--quick]        install, prepare, run
    python benchmarks/peers.py all --avx2           the judged table as on processors without VNNI
    python benchmarks/peers.py all --models NAME    other models, in a section of their own

What is done already is not done again. A peer that cannot be installed, or cannot be given a model,
is reported as missing with the reason. Raw results: build/bench/peers.json, peers-avx2.json, ...
The speeds of the main table go to docs/data/performance.json too, and from there into the chart of
README (charts.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import charts
from comparison import Plan, compare
from document import replace_section
from programs import FOLDER, MODELS, program
from registry import AVX2_JUDGE, ENVIRONMENTS, JUDGE, PEERS, Peer
from tables import markdown, summary

DEFAULT_MODELS = ["llama3.2-1b", "qwen3-0.6b", "smollm2-135m"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("install", "prepare", "run", "table", "all"))
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--models", default=",".join(DEFAULT_MODELS), help=f"of {list(MODELS)}")
    parser.add_argument(
        "--quick", action="store_true", help="llama.cpp Q4_0 alone; prints, and writes no document"
    )
    parser.add_argument(
        "--avx2",
        action="store_true",
        help="our AVX2 kernels beside llama.cpp compiled for AVX2, in a section of its own",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement")
    options = parser.parse_args()
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"no peer {', '.join(sorted(unknown))}; known: {', '.join(PEERS)}")
    models = options.models.split(",")
    peers = [PEERS[name] for name in options.peers or PEERS]
    if options.quick or options.avx2:
        peers = [AVX2_JUDGE if options.avx2 else PEERS["llama-cpp"]]
    section = "peers-avx2" if options.avx2 else "peers"
    if models != DEFAULT_MODELS:
        section = "-".join([section, *models])
    raw = FOLDER / f"{section}.json"
    if options.avx2:
        os.environ["EDGE_LLM_ISA"] = "avx2"  # ours, and the ceilings

    if options.verb in ("install", "all"):
        for peer in peers:
            attempt(peer.install, f"installing {peer.name}", ENVIRONMENTS / f"{peer.name}.failed")
    if options.verb in ("prepare", "all"):
        for model in models:
            program(model)
            for peer in peers:
                mark = peer.folder(model).with_suffix(".failed")
                attempt(lambda p=peer, m=model: p.make(m), f"{peer.name}: {model}", mark)
    if options.verb in ("run", "all"):
        results = measure(models, peers, options.quick or options.avx2, options.rounds)
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_text(json.dumps(results, indent=1), encoding="utf-8")
        if not options.quick:
            document(section, results)
        print(markdown(results))
    if options.verb == "table":
        document(section, json.loads(raw.read_text(encoding="utf-8")))


def document(section: str, results: dict[str, Any]) -> None:
    """Write the section of docs/performance.md, and for the main one its data and their chart."""
    replace_section(section, markdown(results))
    if section == "peers":
        data = f"{json.dumps(summary(results), indent=1)}\n"
        (charts.DATA / "performance.json").write_text(data, encoding="utf-8")
        charts.main()


def attempt(work: Any, what: str, mark: Path) -> None:
    """Do the work, or keep the reason why not in the file ``mark`` for the report."""
    mark.unlink(missing_ok=True)
    start = time.monotonic()
    try:
        work()
        print(f"{what}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    except (RuntimeError, OSError) as exc:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(str(exc), encoding="utf-8")
        print(f"{what} failed: {exc}", file=sys.stderr)


def measure(models: list[str], peers: list[Peer], quick: bool, rounds: int) -> dict[str, Any]:
    plans = plans_of(models, peers, quick)
    return compare(plans, rounds=rounds, quick=quick)


def plans_of(models: list[str], peers: list[Peer], quick: bool = False) -> list[Plan]:
    """Return what to measure: of every model our program, and the files of these peers that are
    there."""
    plans = []
    for model in models:
        engines = {"edge-llm 8da4w": (Path(sys.executable), "time_edge_llm.py", program(model))}
        missing = {}
        for peer in peers:
            for variant, title in peer.variants.items():
                file = peer.folder(model) / variant
                if quick and title != JUDGE:
                    continue
                if file.exists():
                    engines[title] = (peer.python, peer.script, file)
                else:
                    missing[title] = reason(peer, model)
        plans.append(Plan(model, engines, missing))
    return plans


def reason(peer: Peer, model: str) -> str:
    """Return why a peer has no file of a model: the last line of what failed."""
    for mark in (
        ENVIRONMENTS / f"{peer.name}.failed",
        peer.folder(model).with_suffix(".failed"),
    ):
        if mark.exists():
            lines = [line.strip() for line in mark.read_text(encoding="utf-8").splitlines()]
            return next((line for line in reversed(lines) if line), "no reason given")
    return "not prepared"


if __name__ == "__main__":
    main()
