"""The cost of quantization: perplexity of programs and of eager torchao with the same integers.

    python benchmarks/scale_rules.py CHECKPOINT TEXT [--windows 20] [--rules affine,signed,hqq]

For each scale rule: the native 8da4w program, eager PyTorch through torchao's tensor class, and the
fp32 program as the yardstick. Windows as in `edge-llm eval`.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import torch

import edge_llm
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.verification.oracle import eager_model
from edge_llm.program.file import Program
from edge_llm.runner.evaluation.evaluation import evaluate, open_reader
from edge_llm.tokenizers.tokenizer import tokenizer_of

CONTEXT = 1024


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("text", type=Path)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--rules", default="affine,signed,hqq")
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")
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
