"""Toy models on ``meta``, and the stages up to the plan in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from edge_llm.export.backends.registry import get_backend
from edge_llm.export.lowering.lower import lower
from edge_llm.export.lowering.lowered import Lowered
from edge_llm.export.lowering.trace import trace
from edge_llm.export.passes.assign import assign
from edge_llm.export.recipes.formats import assign_formats
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.models.build import build_model
from edge_llm.llm.registry import read_config

CONTEXT = 48
TOY = {
    "vocab_size": 80,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


@pytest.fixture
def toy_config() -> Callable[..., DecoderConfig]:
    """``toy_config(family="llama", **changes)``: one layer, vocabulary 80, dim 64, context 48."""

    def make(family: str = "llama", **changes: Any) -> DecoderConfig:
        return read_config(TOY | {"model_type": family} | changes, "config.json")[0]

    return make


@pytest.fixture
def lowered_toy() -> Callable[..., Lowered]:
    """``lowered_toy(model, recipe)``: trace, lower and assign; no merge, no tie."""

    def run(model: nn.Module | DecoderConfig, recipe: Recipe) -> Lowered:
        if not isinstance(model, nn.Module):
            model = build_model(model, context=CONTEXT, kv_dtype=torch.float16)
        backend = get_backend("native")
        plan = lower(trace(model), context=CONTEXT, operators=backend.operators)
        return assign(plan, assign_formats(plan, recipe, backend))

    return run
