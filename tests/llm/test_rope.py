"""Rotary frequencies against transformers', and the tables' precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.rope import FrequencyDivisors, LongRopeScaling, Rope, read_rope
from edge_llm.llm.rope_tables import inverse_frequencies, rope_note, rope_tables

ROPE = Rope(500_000.0, 64)


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

    rope = read_rope(ConfigReader(sizes | {"rope_parameters": parameters}, "config.json"), 64)
    got = inverse_frequencies(rope, context)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    cos, sin = rope_tables(rope, context)
    assert cos.shape == sin.shape == (context, 32)
    assert float(cos[0, 0]) == pytest.approx(attention_factor)
    np.testing.assert_allclose(cos**2 + sin**2, attention_factor**2, rtol=1e-6)


def test_longrope_regime_is_the_contexts_and_is_told() -> None:
    scaling = LongRopeScaling((1.0,) * 24, (4.0,) * 24, 4096, 1.19)
    rope = Rope(500_000.0, 48, scaling)
    short, long = inverse_frequencies(rope, 4096), inverse_frequencies(rope, 4097)
    assert short.shape == (24,)
    np.testing.assert_allclose(short, long * 4.0)
    assert rope_note(rope, 4096) == (
        "rope: the short factors of longrope, for a context within the 4096 tokens trained with "
        "first, at every length (attention factor 1.19)"
    )
    assert "the long factors of longrope, for a context beyond" in str(rope_note(rope, 4097))
    assert rope_note(ROPE, 4096) is None


def test_divisors_divide() -> None:
    values = tuple(float(i + 1) for i in range(32))
    got = inverse_frequencies(replace(ROPE, scaling=FrequencyDivisors(values)), 4096)
    np.testing.assert_allclose(got * values, inverse_frequencies(ROPE, 4096))


def test_tables_are_rounded_once() -> None:
    cos, sin = rope_tables(ROPE, 4096)
    assert cos.shape == sin.shape == (4096, 32)
    assert cos.dtype == sin.dtype == np.float32
    angles = np.arange(4096)[:, None] * inverse_frequencies(ROPE, 4096)
    assert np.array_equal(cos, np.cos(angles).astype(np.float32))
    assert np.array_equal(sin, np.sin(angles).astype(np.float32))
    assert np.array_equal(cos[0], np.ones(32))


def test_long_tables_are_made_in_blocks_of_the_same_values() -> None:
    cos, sin = rope_tables(ROPE, 10_000)
    angles = np.outer(np.arange(10_000), inverse_frequencies(ROPE, 10_000))
    assert np.array_equal(cos, np.cos(angles).astype(np.float32))
    assert np.array_equal(sin, np.sin(angles).astype(np.float32))
