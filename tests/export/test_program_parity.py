"""Programs against transformers: what is computed, whoever wrote the modelling code.

fp32 programs must give its logits; 8da4w programs those of the transformers model whose linears
hold torchao tensors made of the integers in the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_checkpoints import YARN_ROPE
from parity import PROGRAM_CONTEXT, PROGRAM_LENGTH, check_fp32_program, check_quantized_program

from edge_llm.export.origin.load import load
from edge_llm.export.recipes.file import load_recipe

Tiny = Callable[..., Path]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-untied": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "num_hidden_layers": 3}),
    "llama-head-dim": ("llama", {"head_dim": 24}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {}),
    "phi3-long": ("phi3", {}),
    "phi3-short": (
        "phi3",
        {"tie_word_embeddings": True, "original_max_position_embeddings": PROGRAM_LENGTH},
    ),
    "qwen2-untied": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    ),
    "qwen3-untied": ("qwen3", {}),
    "qwen3-tied": ("qwen3", {"tie_word_embeddings": True, "num_hidden_layers": 4}),
    "qwen3-yarn": ("qwen3", {"rope_parameters": YARN_ROPE}),
    "smollm3": (
        "smollm3",
        {"use_sliding_window": True, "sliding_window": 9, "tie_word_embeddings": True},
    ),
}
CONTEXTS = {"phi3-short": PROGRAM_LENGTH}  # as many as trained with before LongRoPE

Case = tuple[Path, int]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tiny_checkpoint: Tiny) -> Case:
    """The folder of a checkpoint, and the context of its program."""
    family, config = CASES[request.param]
    return tiny_checkpoint(family, **config), CONTEXTS.get(request.param, PROGRAM_CONTEXT)


def test_fp32_program(case: Case, tmp_path: Path) -> None:
    folder, context = case
    check_fp32_program(folder, tmp_path / "x.edge", context)


@pytest.mark.parametrize(
    ("case", "scheme"),
    [
        *((name, "8da4w") for name in CASES),
        *((name, "8da8w") for name in ("llama-tied", "phi3-long", "qwen2-untied", "qwen3-untied")),
    ],
    indirect=["case"],
)
def test_quantized_program(scheme: str, case: Case, tmp_path: Path) -> None:
    folder, context = case
    check_quantized_program(folder, scheme, tmp_path / "x.edge", context)


def test_the_report_names_the_regime(tiny_checkpoint: Tiny) -> None:
    def notes(context: int) -> list[str]:
        recipe = load_recipe("fp32", [f"context={context}"], model=str(tiny_checkpoint("phi3")))
        return [note for note in load(recipe).notes if note.startswith("rope: ")]

    for context, words in ((64, "the short factors of longrope"), (65, "the long factors")):
        (note,) = notes(context)
        assert words in note
