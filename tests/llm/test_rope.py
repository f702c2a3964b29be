"""Rotary frequencies against transformers', and the tables' precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from edge_llm.llm.config import ConfigReader, FrequencyDivisors, LongRopeScaling, ModelConfig
from edge_llm.llm.rope import inverse_frequencies, read_rope, rope_note, rope_tables

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


FACTORS = {
    "short_factor": [1.0 + i / 16 for i in range(32)],
    "long_factor": [2.0 + i for i in range(32)],
}
RULES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    # as Qwen's model cards tell to add it
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    "yarn of an own shape": {
        "rope_type": "yarn",
        "factor": 16.0,
        "original_max_position_embeddings": 2048,
        "beta_fast": 24.0,
        "beta_slow": 3.0,
        "truncate": False,
        "attention_factor": 1.5,
    },
    "yarn with mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 0.9,
        "mscale_all_dim": 0.6,
    },
    "yarn of a step": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 6,
    },
    "longrope": {
        "rope_type": "longrope",
        "original_max_position_embeddings": 4096,
        **FACTORS,
    },
    "longrope with factors": {
        "rope_type": "longrope",
        "original_max_position_embeddings": 4096,
        "factor": 8.0,
        **FACTORS,
    },
    "longrope with attention": {
        "rope_type": "longrope",
        "original_max_position_embeddings": 4096,
        "attention_factor": 1.25,
        **FACTORS,
    },
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("context", [4096, 4097])
def test_frequencies_and_factor_are_those_of_transformers(rule: str, context: int) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_theta": 500_000.0, **RULES[rule]}
    sizes = {"num_attention_heads": 2, "hidden_size": 128, "max_position_embeddings": 131072}
    theirs = LlamaConfig(**sizes, rope_parameters=dict(parameters))
    expected, attention_factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](
        theirs, "cpu", seq_len=context
    )

    rope = read_rope(ConfigReader(sizes | {"rope_parameters": parameters}, "config.json"))
    config = replace(CONFIG, rope_theta=rope.theta, rope_scaling=rope.scaling)
    got = inverse_frequencies(config, context)
    torch.testing.assert_close(got.float(), expected, rtol=1e-5, atol=0.0)
    cos, sin = rope_tables(config, context)
    assert cos.shape == sin.shape == (context, 32)
    assert float(cos[0, 0]) == pytest.approx(attention_factor)
    torch.testing.assert_close(cos**2 + sin**2, torch.full_like(cos, attention_factor**2))


def test_longrope_regime_is_the_contexts_and_is_told() -> None:
    scaling = LongRopeScaling((1.0,) * 24, (4.0,) * 24, 4096, 1.19)
    config = replace(CONFIG, rope_scaling=scaling, partial_rotary=48)
    short, long = inverse_frequencies(config, 4096), inverse_frequencies(config, 4097)
    assert short.shape == (24,)
    torch.testing.assert_close(short, long * 4.0)
    assert rope_note(config, 4096) == (
        "rope: the short factors of longrope, for a context within the 4096 tokens trained with "
        "first, at every length (attention factor 1.19)"
    )
    assert "the long factors of longrope, for a context beyond" in str(rope_note(config, 4097))
    assert rope_note(CONFIG, 4096) is None


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


def test_long_tables_are_made_in_blocks_of_the_same_values() -> None:
    cos, sin = rope_tables(CONFIG, 10_000)
    frequencies = inverse_frequencies(CONFIG, 10_000)
    angles = torch.outer(torch.arange(10_000, dtype=torch.float64), frequencies)
    assert torch.equal(cos, angles.cos().float())
    assert torch.equal(sin, angles.sin().float())
