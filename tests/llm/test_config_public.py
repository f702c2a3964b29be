"""Published config.json files of the families, key by key: read without an error or an unread key,
as facts that fit the published parameter counts, in the form of either transformers version."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from edge_llm.llm.decoder import ropes_of
from edge_llm.llm.registry import parameter_shapes, read_config
from edge_llm.llm.rope import LongRopeScaling

SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


def published(family: str, *sizes: int, **others: Any) -> dict[str, Any]:
    """A config.json of transformers 4; keys in ``others`` win."""
    common = {
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "model_type": family,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.2",
        "use_cache": True,
    }
    return {**common, **dict(zip(SIZES, sizes, strict=True)), **others}


LLAMA3: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
}
MISTRAL: dict[str, Any] = {"architectures": ["MistralForCausalLM"], "rms_norm_eps": 1e-05}
PHI: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
    "embd_pdrop": 0.0,
    "original_max_position_embeddings": 4096,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
}
QWEN: dict[str, Any] = {
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
}
# The factors of the real files have this many digits; their number is what reading depends on.
LONG = {
    "long_factor": [1.0800000429153442, *[64.0] * 47],
    "short_factor": [1.0, *[3.0799999237060547] * 47],
    "type": "longrope",
}

CONFIGS: dict[str, tuple[int, dict[str, Any]]] = {
    "Llama-2-7b": (
        6_738_415_616,
        published(
            "llama",
            *(4096, 32, 32, 32, 11008, 32000, 4096),
            _name_or_path="meta-llama/Llama-2-7b-hf",
            architectures=["LlamaForCausalLM"],
            pretraining_tp=1,
            rms_norm_eps=1e-05,
            rope_scaling=None,
        ),
    ),
    "Llama-3.1-8B": (
        8_030_261_248,
        published("llama", 4096, 32, 32, 8, 14336, 128256, 131072, **LLAMA3),
    ),
    "Llama-3.3-70B": (
        70_553_706_496,
        published(
            "llama",
            *(8192, 80, 64, 8, 28672, 128256, 131072),
            eos_token_id=[128001, 128008, 128009],
            head_dim=128,
            **LLAMA3,
        ),
    ),
    "DeepSeek-R1-Distill-Llama-8B": (
        8_030_261_248,
        published("llama", 4096, 32, 32, 8, 14336, 128256, 131072, **LLAMA3),
    ),
    "Mistral-7B-v0.1": (
        7_241_732_096,
        published(
            "mistral",
            *(4096, 32, 32, 8, 14336, 32000, 32768),
            rope_theta=10000.0,
            sliding_window=4096,
            **MISTRAL,
        ),
    ),
    "Mistral-7B-v0.3": (
        7_248_023_552,
        published(
            "mistral",
            *(4096, 32, 32, 8, 14336, 32768, 32768),
            rope_theta=1000000.0,
            sliding_window=None,
            **MISTRAL,
        ),
    ),
    "Phi-3-mini-4k": (
        3_821_079_552,
        published(
            "phi3",
            *(3072, 32, 32, 32, 8192, 32064, 4096),
            _name_or_path="Phi-3-mini-4k-instruct",
            pad_token_id=32000,
            rope_scaling=None,
            sliding_window=2047,
            **PHI,
        ),
    ),
    "Phi-3.5-mini": (
        3_821_079_552,
        published(
            "phi3",
            *(3072, 32, 32, 32, 8192, 32064, 131072),
            _name_or_path="Phi-3.5-mini-instruct",
            rope_scaling=LONG,
            sliding_window=262144,
            **PHI,
        ),
    ),
    "Phi-4-mini": (
        3_836_021_760,
        published(
            "phi3",
            *(3072, 32, 24, 8, 8192, 200064, 131072),
            full_attn_mod=1,
            interpolate_factor=1,
            lm_head_bias=False,
            mlp_bias=False,
            partial_rotary_factor=0.75,
            rope_scaling=LONG,
            sliding_window=262144,
            tie_word_embeddings=True,
            **PHI,
        ),
    ),
    "Qwen2.5-0.5B": (
        494_032_768,
        published(
            "qwen2",
            *(896, 24, 14, 2, 4864, 151936, 32768),
            max_window_layers=24,
            sliding_window=32768,
            tie_word_embeddings=True,
            use_mrope=False,
            **QWEN,
        ),
    ),
    "Qwen2.5-7B": (
        7_615_616_512,
        published(
            "qwen2",
            *(3584, 28, 28, 4, 18944, 152064, 131072),
            max_window_layers=28,
            sliding_window=131072,
            use_mrope=False,
            **QWEN,
        ),
    ),
    "DeepSeek-R1-Distill-Qwen-1.5B": (
        1_777_088_000,
        published(
            "qwen2",
            *(1536, 28, 12, 2, 8960, 151936, 131072),
            max_window_layers=21,
            sliding_window=4096,
            use_mrope=False,
            **(QWEN | {"rope_theta": 10000}),
        ),
    ),
    "Qwen3-0.6B": (
        596_049_920,
        published(
            "qwen3",
            *(1024, 28, 16, 8, 3072, 151936, 40960),
            attention_bias=False,
            head_dim=128,
            max_window_layers=28,
            rope_scaling=None,
            sliding_window=None,
            tie_word_embeddings=True,
            **QWEN,
        ),
    ),
    "Qwen3-8B": (
        8_190_735_360,
        published(
            "qwen3",
            *(4096, 36, 32, 8, 12288, 151936, 40960),
            attention_bias=False,
            head_dim=128,
            max_window_layers=36,
            rope_scaling=None,
            sliding_window=None,
            **QWEN,
        ),
    ),
    "SmolLM3-3B": (
        3_075_098_624,
        {
            key: value
            for key, value in published(
                "smollm3",
                *(2048, 36, 16, 4, 11008, 128256, 65536),
                attention_bias=False,
                layer_types=["full_attention"] * 36,
                max_window_layers=28,
                mlp_bias=False,
                no_rope_layer_interval=4,
                no_rope_layers=[1, 1, 1, 0] * 9,
                pretraining_tp=2,
                rms_norm_eps=1e-06,
                rope_scaling=None,
                rope_theta=5000000.0,
                sliding_window=None,
                use_sliding_window=False,
            ).items()
            if key != "tie_word_embeddings"  # left at the class's default, which is true
        },
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameter_count(name: str) -> None:
    parameters, values = CONFIGS[name]
    config, unread = read_config(values, name)
    assert unread == ()
    assert sum(math.prod(shape) for shape in parameter_shapes(config).values()) == parameters


@pytest.mark.parametrize("name", CONFIGS)
def test_version_5_form_says_the_same(name: str) -> None:
    from transformers import CONFIG_MAPPING

    values = CONFIGS[name][1]
    family = values["model_type"]
    given = {key: value for key, value in values.items() if key not in ("auto_map", "model_type")}
    given = copy.deepcopy(given)  # transformers writes into what it is given
    written = CONFIG_MAPPING[family](**given).to_dict()
    assert "rope_parameters" in written
    assert read_config(written, name) == read_config(values, name)


def facts(name: str) -> Any:
    return read_config(CONFIGS[name][1], name)[0]


def test_what_sets_each_apart() -> None:
    assert facts("Mistral-7B-v0.1").sliding_window == (4096,) * 32
    assert not any(facts("Mistral-7B-v0.3").sliding_window)
    assert facts("Phi-3-mini-4k").sliding_window == (2047,) * 32
    assert not any(facts("Phi-3.5-mini").sliding_window)  # longer than the model's context
    assert not any(facts("DeepSeek-R1-Distill-Qwen-1.5B").sliding_window)
    assert facts("Phi-3.5-mini").rope_parameters.dim == facts("Phi-3.5-mini").head_dim == 96
    assert (facts("Phi-4-mini").rope_parameters.dim, facts("Phi-4-mini").head_dim) == (96, 128)
    scaling = facts("Phi-4-mini").rope_parameters.scaling
    assert isinstance(scaling, LongRopeScaling)
    assert (len(scaling.short), len(scaling.long), scaling.original_context) == (48, 48, 4096)
    assert scaling.attention_factor == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))
    smollm3 = facts("SmolLM3-3B")
    assert smollm3.tie_word_embeddings
    ropes = [smollm3.attention(layer).rope for layer in range(36)]
    assert [layer for layer in range(36) if ropes[layer] is None] == list(range(3, 36, 4))
    assert ropes_of(smollm3) == (ropes[0],)


def test_absent_keys_have_the_defaults_of_transformers() -> None:
    def without(name: str, *keys: str) -> Any:
        values = {key: value for key, value in CONFIGS[name][1].items() if key not in keys}
        return read_config(values, name)[0]

    assert without("Mistral-7B-v0.3", "sliding_window").sliding_window == (4096,) * 32
    assert not any(without("Phi-3-mini-4k", "sliding_window").sliding_window)
    assert without("SmolLM3-3B", "no_rope_layers", "no_rope_layer_interval") == facts("SmolLM3-3B")
    assert without("SmolLM3-3B", "rope_theta").rope_parameters.theta == 2_000_000.0
    assert not without("Phi-4-mini", "tie_word_embeddings").tie_word_embeddings
