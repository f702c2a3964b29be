"""Eager models against transformers on tiny random checkpoints that transformers wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_checkpoints import YARN_ROPE
from parity import (
    CONTEXT,
    EAGER_LENGTH,
    assert_parity,
    check_at_once,
    check_interleaved,
    check_token_by_token,
    eager,
    prompt,
    reference,
)

YARN_OF_ITS_OWN = YARN_ROPE | {"attention_factor": 1.3, "beta_fast": 8.0, "beta_slow": 2.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-untied": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-head-dim": ("llama", {"head_dim": 24}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-2": ("llama", {"rope_parameters": None, "num_key_value_heads": 4}),
    "mistral-window": ("mistral", {}),
    "mistral-plain": ("mistral", {"sliding_window": None, "head_dim": None}),
    "phi3-long": ("phi3", {}),
    "phi3-short": ("phi3", {"tie_word_embeddings": True}),
    "phi3-plain": ("phi3", {"rope_parameters": None, "sliding_window": 17}),
    "qwen2-untied": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1},
    ),
    "qwen2-yarn": ("qwen2", {"rope_parameters": YARN_ROPE}),
    "qwen3-untied": ("qwen3", {}),
    "qwen3-tied": ("qwen3", {"tie_word_embeddings": True}),
    "qwen3-biases": ("qwen3", {"attention_bias": True}),
    "qwen3-windows": (
        "qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 23,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "qwen3-yarn": ("qwen3", {"rope_parameters": YARN_OF_ITS_OWN}),
    "smollm3": ("smollm3", {}),
    "smollm3-windows": (
        "smollm3",
        {
            "no_rope_layers": [0, 1, 1],
            "use_sliding_window": True,
            "sliding_window": 9,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
}
CONTEXTS = {"phi3-short": 64}  # as many as trained with before LongRoPE

Case = tuple[Path, int]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Case:
    """The folder of a checkpoint, and the context to build its model for."""
    family, config = CASES[request.param]
    return tiny_checkpoint(family, **config), CONTEXTS.get(request.param, CONTEXT)


def test_prompt_at_once(case: Case) -> None:
    check_at_once(*case)


def test_token_by_token(case: Case) -> None:
    check_token_by_token(*case)


def test_two_sequences_interleaved(case: Case) -> None:
    check_interleaved(*case)


@pytest.mark.parametrize(("context", "length"), [(64, 64), (CONTEXT, 65), (CONTEXT, EAGER_LENGTH)])
def test_longrope_where_transformers_has_the_same_regime(
    context: int, length: int, tiny_checkpoint: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint("phi3")
    tokens, every = prompt(length, 6), torch.arange(length)
    logits = eager(folder, context)(tokens, every, torch.zeros_like(tokens), every)
    assert_parity(logits, *reference(folder, None, tokens))


def test_rows_pick_logits(tiny_checkpoint: Callable[..., Path]) -> None:
    model = eager(tiny_checkpoint("llama"), CONTEXT)
    tokens = prompt(8, 5)
    args = (tokens, torch.arange(8), torch.zeros_like(tokens))
    every = model(*args, torch.arange(8))
    torch.testing.assert_close(model(*args, torch.tensor([6, 2])), every[[6, 2]])
