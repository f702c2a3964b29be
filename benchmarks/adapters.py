"""What LoRA adapters beside a program cost: decode and prefill of the model itself, with adapters
loaded and without, and of an adapter, in turns.

    python benchmarks/adapters.py [--model FILE|NAME] [--rank 16] [--count 4] [--rounds 5]

The adapters are random ones on every linear of the layers, in float16. All ways are loaded side by
side and take turns; the medians of the rounds' ratios to the program without adapters are printed,
and the bytes that the adapters take.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import edge_llm
from edge_llm.catalogue import find_program
from edge_llm.program.file import Program
from edge_llm.runner.adapters.parameters import parameters_of

PROMPT, DECODED = 256, 32


def write_adapter(folder: Path, program: Path, rank: int, seed: int) -> None:
    """Write a random adapter of every linear of the layers."""
    random, tensors = np.random.default_rng(seed), {}
    with Program.open(program) as opened:
        parts = parameters_of(opened.plan)
    for name, part in parts.items():
        if part.table or ".layers." not in name:
            continue
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        for half, shape in (("A", (rank, part.columns)), ("B", (part.rows, rank))):
            values = random.standard_normal(shape) * 0.01
            tensors[f"{stem}.lora_{half}.weight"] = values.astype(np.float16)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def measured(llm: edge_llm.LLM, adapter: str | None, salt: int) -> tuple[float, float]:
    """Return the tokens a second of prefill and decode, of a prompt that no cache has."""
    prompt = [(salt * 7919 + 31 * i) % 1000 + 100 for i in range(PROMPT)]
    options: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True, "speculation": "off"}
    started = time.perf_counter()
    llm.generate(prompt, adapter=adapter, max_tokens=1, **options)
    prefilled = time.perf_counter()
    llm.generate(prompt, adapter=adapter, max_tokens=DECODED, **options)
    return PROMPT / (prefilled - started), DECODED / (time.perf_counter() - prefilled)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m", metavar="FILE|NAME")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    path = find_program(options.model)
    with tempfile.TemporaryDirectory() as folder:
        adapters = {f"a{i}": Path(folder) / f"a{i}" for i in range(options.count)}
        for seed, made in enumerate(adapters.values()):
            write_adapter(made, path, options.rank, seed)
        with (
            edge_llm.load(path, threads=options.threads) as plain,
            edge_llm.load(path, threads=options.threads, adapters=adapters) as beside,
        ):
            ways = {
                "the program alone": (plain, None),
                "the model itself, adapters loaded": (beside, None),
                "an adapter": (beside, "a0"),
            }
            rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for salt in range(options.rounds + 1):
                for name, (llm, adapter) in ways.items():
                    speeds = measured(llm, adapter, salt)
                    if salt:  # the first is to warm up
                        rounds[name].append(speeds)
            bytes_each = (beside.memory - plain.memory) / options.count
    print(
        f"{path.name}: {options.count} adapters of rank {options.rank} on every linear of the "
        f"layers, {bytes_each / 1e6:.1f} MB each beside {path.stat().st_size / 1e6:.0f} MB"
    )
    for name, figures in rounds.items():
        line = f"{name:34}"
        for place, what in enumerate(("prefill", "decode")):
            speed = statistics.median(row[place] for row in figures)
            base = rounds["the program alone"]
            ratio = statistics.median(
                row[place] / other[place] for row, other in zip(figures, base, strict=True)
            )
            line += f"  {what} {speed:6.0f} tokens/s ({ratio:.2f})"
        print(line)


if __name__ == "__main__":
    main()
