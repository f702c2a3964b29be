"""Eager models against transformers on tiny random checkpoints that transformers wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.registry import load_model

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-untied": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-head-dim": ("llama", {"head_dim": 24}),
    "qwen2-untied": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3-untied": ("qwen3", {}),
    "qwen3-tied": ("qwen3", {"tie_word_embeddings": True}),
}
LENGTH, CONTEXT = 150, 160


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    family, config = CASES[request.param]
    return tiny_checkpoint(family, **config)


def prompt(length: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 288, (length,), generator=torch.Generator().manual_seed(seed))


def reference(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        logits: torch.Tensor = model(tokens[None]).logits[0]
    return logits


def eager(folder: Path, slots: int = 1) -> nn.Module:
    checkpoint = open_checkpoint(folder)
    return load_model(
        checkpoint.config,
        checkpoint.tensor,
        context=CONTEXT,
        kv_dtype=torch.float32,
        slots=slots,
    )


def assert_parity(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.shape == expected.shape
    assert float((got - expected).abs().max() / expected.std()) < 1e-4


def test_prompt_at_once(folder: Path) -> None:
    tokens = prompt(LENGTH, 1)
    every = torch.arange(LENGTH)
    logits = eager(folder)(tokens, every, torch.zeros_like(tokens), every)
    assert_parity(logits, reference(folder, tokens))


def test_token_by_token(folder: Path) -> None:
    tokens = prompt(24, 2)
    model = eager(folder)
    zero = torch.zeros(1, dtype=torch.long)
    steps = [model(tokens[i : i + 1], zero + i, zero, zero) for i in range(len(tokens))]
    assert_parity(torch.cat(steps), reference(folder, tokens))


def test_two_sequences_interleaved(folder: Path) -> None:
    a, b = prompt(20, 3), prompt(13, 4)
    model = eager(folder, slots=2)
    got: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    # Uneven steps: (from, to) of a, then of b.
    for ranges in (((0, 5), (0, 1)), ((5, 6), (1, 9)), ((6, 20), (9, 13))):
        parts = [
            (tokens[low:high], torch.arange(low, high), torch.full((high - low,), slot))
            for slot, (tokens, (low, high)) in enumerate(zip((a, b), ranges, strict=True))
        ]
        batch = [torch.cat(columns) for columns in zip(*parts, strict=True)]
        logits = model(*batch, torch.arange(len(batch[0])))
        for slot in (0, 1):
            got[slot].append(logits[batch[2] == slot])
    assert_parity(torch.cat(got[0]), reference(folder, a))
    assert_parity(torch.cat(got[1]), reference(folder, b))


def test_rows_pick_logits(tiny_checkpoint: Callable[..., Path]) -> None:
    model = eager(tiny_checkpoint("llama"))
    tokens = prompt(8, 5)
    args = (tokens, torch.arange(8), torch.zeros_like(tokens))
    every = model(*args, torch.arange(8))
    torch.testing.assert_close(model(*args, torch.tensor([6, 2])), every[[6, 2]])
