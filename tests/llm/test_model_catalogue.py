"""configs/models: every entry parses, and its facts are those of its public config."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

import pytest
import yaml

from edge_llm.llm.registry import FAMILIES, parameter_shapes, read_config

ENTRIES = sorted(
    (entry for entry in (files("edge_llm") / "configs" / "models").iterdir()),
    key=lambda entry: entry.name,
)
KEYS = {
    "name",
    "source",
    "family",
    "licence",
    "licence_url",
    "gated",
    "context",
    "parameters",
    "download_bytes",
    "stop_ids",
    "recipe",
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
QWEN_EXTRAS = {"sliding_window": None, "max_window_layers": 28, "use_sliding_window": False}


def published(family: str, sizes: tuple[int, ...], **others: Any) -> dict[str, Any]:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    names += ("intermediate_size", "vocab_size", "max_position_embeddings")
    return {
        "model_type": family,
        **dict(zip(names, sizes, strict=True)),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        **others,
    }


# The parts of the published config.json files that decide shapes and computation.
PUBLISHED = {
    "llama3.2-1b": published(
        "llama",
        (2048, 16, 32, 8, 8192, 128256, 131072),
        rope_theta=500000.0,
        rope_scaling=LLAMA3_SCALING,
        head_dim=64,
        attention_bias=False,
        mlp_bias=False,
        pretraining_tp=1,
    ),
    "llama3.2-3b": published(
        "llama",
        (3072, 28, 24, 8, 8192, 128256, 131072),
        rope_theta=500000.0,
        rope_scaling=LLAMA3_SCALING,
        head_dim=128,
    ),
    "qwen2.5-0.5b": published(
        "qwen2", (896, 24, 14, 2, 4864, 151936, 32768), rope_theta=1000000.0, **QWEN_EXTRAS
    ),
    "qwen3-0.6b": published(
        "qwen3",
        (1024, 28, 16, 8, 3072, 151936, 40960),
        rope_theta=1000000,
        rope_scaling=None,
        head_dim=128,
        attention_bias=False,
        **QWEN_EXTRAS,
    ),
    "smollm2-135m": published(
        "llama",
        (576, 30, 9, 3, 1536, 49152, 8192),
        rope_theta=100000,
        rope_scaling=None,
        rope_interleaved=False,
        is_llama_config=True,
    ),
}


def test_there_is_a_published_config_for_each() -> None:
    assert [entry.name for entry in ENTRIES] == [f"{name}.yaml" for name in PUBLISHED]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_facts(entry: Any) -> None:
    facts = yaml.safe_load(entry.read_text(encoding="utf-8"))
    assert entry.name == f"{facts['name']}.yaml"
    assert set(facts) - {"package", "sampling"} == KEYS
    assert facts["source"].startswith("hf:")
    assert facts["family"] in FAMILIES
    assert facts["licence_url"].startswith("https://")
    assert isinstance(facts["gated"], bool)
    assert (files("edge_llm") / "configs" / "recipes" / f"{facts['recipe']}.yaml").is_file()

    config, unread = read_config(PUBLISHED[facts["name"]], facts["name"])
    assert unread == ()
    assert config.family == facts["family"]
    assert config.context == facts["context"]
    assert (
        sum(math.prod(shape) for shape in parameter_shapes(config).values())
        == (facts["parameters"])
    )
    assert facts["stop_ids"]
    assert all(0 <= id_ < config.vocab for id_ in facts["stop_ids"])
    if "package" in facts:
        package = facts["package"]
        assert set(package) == {"name", "version", "file", "sha256", "bytes"}
        assert len(bytes.fromhex(package["sha256"])) == 32
        assert isinstance(package["version"], str)
        assert package["bytes"] > 0
    else:
        # bf16 files: two bytes for each parameter, and a header
        assert facts["download_bytes"] >= 2 * facts["parameters"]
