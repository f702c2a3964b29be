"""The cost of quantization: perplexity of programs and of eager torchao with the same integers.

    python benchmarks/quality.py CHECKPOINT TEXT [--windows 20] [--rules affine,signed,hqq]
    python benchmarks/quality.py CHECKPOINT TEXT --sizes [--windows 10]

For each scale rule: the native 8da4w program, eager PyTorch through torchao's tensor class, and the
fp32 program as the yardstick. Windows as in `edge-llm eval`.

With --sizes: size and distance from the fp32 program of each scheme, on the second halves of the
windows, written to docs/data/quality.json, and the chart that is drawn from it (charts.py).
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import charts
import torch
from document import where

import edge_llm
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.verification.oracle import eager_model
from edge_llm.program.file import Program
from edge_llm.runner.evaluation.evaluation import evaluate, open_reader
from edge_llm.tokenizers.tokenizer import tokenizer_of

CONTEXT = 1024
# Title -> options of the recipe.
SIZES: dict[str, dict[str, Any]] = {
    "8da4w, four bits as published": {"scheme": "8da4w"},
    "8da4w, rounded anew": {"scheme": "8da4w", "requantize": True},
    "8da8w": {"scheme": "8da8w", "requantize": True},
    "fp16": {"scheme": "fp16"},
}


def eager_perplexity(recipe: Recipe, ids: list[int], windows: int) -> float:
    """Return the perplexity of eager PyTorch with the recipe's integers and the program's float16
    KV cache."""
    model = eager_model(recipe, slots=1, tokens=CONTEXT)
    total, tokens = 0.0, 0
    for window in range(windows):  # each overwrites the cache of the one before
        part = torch.tensor(ids[window * CONTEXT : (window + 1) * CONTEXT])
        every = torch.arange(CONTEXT)
        with torch.no_grad():
            logits = model(part, every, torch.zeros_like(every), every[:-1])
        total += float(torch.nn.functional.cross_entropy(logits, part[1:], reduction="sum"))
        tokens += CONTEXT - 1
    return math.exp(total / tokens)


def sizes(checkpoint: str, text: str, windows: int) -> dict[str, Any]:
    """Return size and distance from the fp32 program of each of `SIZES`."""
    programs = []
    with tempfile.TemporaryDirectory() as folder:
        fine = edge_llm.export(
            load_recipe("fp32", model=checkpoint, verify=False), output=Path(folder) / "fp32.edge"
        )
        for title, options in SIZES.items():
            recipe = load_recipe(options["scheme"], model=checkpoint, verify=False, **options)
            path = edge_llm.export(recipe, output=Path(folder) / "quality.edge")
            with (
                Program.open(fine) as reference,
                Program.open(path) as program,
                open_reader(reference, CONTEXT) as theirs,
                open_reader(program, CONTEXT) as ours,
            ):
                ids = tokenizer_of(program).encode(text, add_bos=False)
                found = evaluate(
                    ours, ids, window=CONTEXT, windows=windows, second_half=True, reference=theirs
                )
                assert found.divergence is not None
                programs.append(
                    {
                        "title": title,
                        "bits_per_weight": round(program.documents.report["bits_per_weight"], 3),
                        "file_bytes": program.file_bytes,
                        "kl": round(found.divergence.mean.value, 5),
                        "kl_error": round(found.divergence.mean.error or 0.0, 5),
                        "perplexity_ratio": round(found.divergence.perplexity_ratio.value, 4),
                        "top1": round(found.divergence.top1.value, 4),
                    }
                )
            print(programs[-1], flush=True)
    return {
        "model": Path(checkpoint).stem,
        "date": datetime.date.today().isoformat(),
        "where": where(),
        "windows": found.windows,
        "window": CONTEXT,
        "programs": programs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("text", type=Path)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--rules", default="affine,signed,hqq")
    parser.add_argument("--sizes", action="store_true", help="write docs/data/quality.json")
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")
    if options.sizes:
        results = sizes(options.checkpoint, text, options.windows)
        data = f"{json.dumps(results, indent=1)}\n"
        (charts.DATA / "quality.json").write_text(data, encoding="utf-8")
        charts.main()
        return
    print("| | program | eager torchao | program / eager |\n|---|---|---|---|")
    recipes = {"fp32": load_recipe("fp32", model=options.checkpoint, verify=False)}
    for rule in options.rules.split(","):
        recipes[f"8da4w, {rule}"] = load_recipe(
            "8da4w", model=options.checkpoint, verify=False, scale_rule=rule, requantize=True
        )
    for name, recipe in recipes.items():
        with tempfile.TemporaryDirectory() as folder:
            path = edge_llm.export(recipe, output=Path(folder) / "quality.edge")
            with Program.open(path) as program, open_reader(program, CONTEXT) as reader:
                ids = tokenizer_of(program).encode(text, add_bos=False)
                found = evaluate(reader, ids, window=CONTEXT, windows=options.windows)
                mine = found.perplexity.value
        eager = eager_perplexity(recipe, ids, options.windows)
        print(f"| {name} | {mine:.3f} | {eager:.3f} | {mine / eager - 1:+.2%} |", flush=True)


if __name__ == "__main__":
    main()
