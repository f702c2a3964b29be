"""Rotary frequencies against transformers', and the tables' precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from edge_llm.llm.config import (
    FrequencyDivisors,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    RopeScaling,
)
from edge_llm.llm.rope import inverse_frequencies, rope_tables

CONFIG = ModelConfig(
    family="llama",
    vocab=10,
    dim=64,
    layers=1,
    heads=2,
    kv_heads=2,
    head_dim=64,
    ffn=64,
    norm_eps=1e-5,
    context=4096,
    rope_theta=500_000.0,
    rope_scaling=None,
    tied=True,
)


@pytest.mark.parametrize(
    ("scaling", "parameters"),
    [
        (LinearScaling(4.0), {"rope_type": "linear", "factor": 4.0}),
        (
            Llama3Scaling(32.0, 1.0, 4.0, 8192),
            {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        ),
    ],
)
def test_frequencies_are_those_of_transformers(
    scaling: RopeScaling, parameters: dict[str, Any]
) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=128,
        num_attention_heads=2,
        max_position_embeddings=131072,
        rope_parameters={"rope_theta": 500_000.0, **parameters},
    )
    expected, attention_factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu")
    assert attention_factor == 1.0
    got = inverse_frequencies(replace(CONFIG, rope_scaling=scaling), 4096)
    torch.testing.assert_close(got.float(), expected, rtol=1e-5, atol=0.0)


def test_divisors_divide() -> None:
    values = tuple(float(i + 1) for i in range(32))
    got = inverse_frequencies(replace(CONFIG, rope_scaling=FrequencyDivisors(values)), 4096)
    torch.testing.assert_close(got * torch.tensor(values), inverse_frequencies(CONFIG, 4096))


def test_tables_are_rounded_once() -> None:
    cos, sin = rope_tables(CONFIG, 4096)
    assert cos.shape == sin.shape == (4096, 32)
    assert cos.dtype == sin.dtype == torch.float32
    angles = torch.arange(4096, dtype=torch.float64)[:, None] * inverse_frequencies(CONFIG, 4096)
    assert torch.equal(cos, angles.cos().float())
    assert torch.equal(sin, angles.sin().float())
    assert torch.equal(cos[0], torch.ones(32))
