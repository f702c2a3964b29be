"""Reading configs: both transformers forms, and one error for everything that is not honoured."""

from __future__ import annotations

from typing import Any

import pytest

from edge_llm.errors import ConfigError
from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import read_common
from edge_llm.llm.models.build import build_model
from edge_llm.llm.registry import FAMILIES, read_config
from edge_llm.llm.rope import LinearScaling, Llama3Scaling, LongRopeScaling, Rope

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_defaults_of_absent_keys() -> None:
    values = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    config, unread = read_config(values | {"rope_scaling": None}, "config.json")
    shape = config.attention(0)
    assert (shape.kv_heads, shape.head_dim, config.tie_word_embeddings) == (4, 16, False)
    assert shape.rope == Rope(10_000.0, 16)
    assert unread == ()
    qwen3, _ = read_config(LLAMA | {"model_type": "qwen3"}, "config.json")
    assert qwen3.attention(0).head_dim == 128


@pytest.mark.parametrize(
    "form",
    [
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **SCALING}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **SCALING}},
        {"rope_theta": 500000, "rope_scaling": {"type": "llama3", **SCALING}},
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "llama3", **SCALING}},
    ],
)
def test_rope_of_either_version(form: dict[str, Any]) -> None:
    config, _ = read_config(LLAMA | form, "config.json")
    assert config.rope_parameters.theta == 5e5
    assert config.rope_parameters.scaling == Llama3Scaling(8.0, 1.0, 4.0, 64)


def test_linear_rope() -> None:
    form = {"rope_scaling": {"type": "linear", "factor": 2}}
    config, _ = read_config(LLAMA | form, "config.json")
    assert config.rope_parameters.scaling == LinearScaling(2.0)


@pytest.mark.parametrize(
    ("change", "windows"),
    [
        ({"model_type": "qwen2"}, ()),
        ({"model_type": "qwen2", "sliding_window": 32}, ()),
        ({"model_type": "qwen2", "use_sliding_window": True}, ()),  # 4096, beyond the context
        (
            {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 32},
            (),  # in layers from the 28th on
        ),
        (
            {
                "model_type": "qwen2",
                "use_sliding_window": True,
                "sliding_window": 32,
                "max_window_layers": 1,
            },
            (0, 32),
        ),
        (
            {
                "model_type": "qwen3",
                "use_sliding_window": True,
                "sliding_window": 32,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            (32, 0),
        ),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": None},
            (),
        ),
        ({"model_type": "phi3", "sliding_window": 255}, (255, 255)),
        ({"model_type": "phi3", "sliding_window": 256}, ()),
        (
            {
                "model_type": "smollm3",
                "use_sliding_window": True,
                "sliding_window": 9,
                "no_rope_layers": [0, 1],
            },
            (9, 0),
        ),
    ],
)
def test_windows(change: dict[str, Any], windows: tuple[int, ...]) -> None:
    config, unread = read_config(LLAMA | change, "config.json")
    assert tuple(config.attention(layer).window for layer in range(2)) == (windows or (0, 0))
    assert unread == ()


def test_yarn_extends_the_context() -> None:
    form = {
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 200}
    }
    assert read_config(LLAMA | form, "config.json")[0].max_position_embeddings == 800
    longer = LLAMA | form | {"max_position_embeddings": 1000}
    assert read_config(longer, "config.json")[0].max_position_embeddings == 1000


def test_original_length_beside_or_within_the_scaling() -> None:
    factors = {"short_factor": [1] * 8, "long_factor": [2.0] * 8}
    within = {"type": "su", "original_max_position_embeddings": 64, **factors}
    expected = LongRopeScaling((1.0,) * 8, (2.0,) * 8, 64, pytest.approx((4 / 3) ** 0.5))
    phi3 = LLAMA | {"model_type": "phi3"}
    for form in (
        {"rope_scaling": within},
        {
            "rope_scaling": {"type": "longrope", **factors},
            "original_max_position_embeddings": 64,
        },
        {"rope_scaling": within, "original_max_position_embeddings": 64},
    ):
        assert read_config(phi3 | form, "config.json")[0].rope_parameters.scaling == expected
    with pytest.raises(ConfigError, match="original_max_position_embeddings: got 64, expected 65"):
        read_config(
            phi3 | {"rope_scaling": within, "original_max_position_embeddings": 65}, "config.json"
        )


def test_unread_keys_are_listed_and_harmless_ones_are_not() -> None:
    values = LLAMA | {"use_cache": True, "initializer_range": 0.02, "a_new_key": 1, "another": []}
    assert read_config(values, "config.json")[1] == ("a_new_key", "another")
    qwen = {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}
    assert read_config(LLAMA | qwen, "config.json")[1] == ()
    assert read_config(LLAMA | {"sliding_window": 4096}, "c")[1] == ("sliding_window",)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"model_type": "mamba"}, ["model_type: got 'mamba', expected one of 'exaone4', "]),
        ({"model_type": None}, ["model_type: got None"]),
        ({"model_type": ["llama"]}, ["model_type: got ['llama']"]),
        ({"hidden_size": None}, ["hidden_size: missing, expected an integer"]),
        ({"hidden_size": "64"}, ["hidden_size: got '64'"]),
        ({"hidden_size": True}, ["hidden_size: got True"]),
        ({"hidden_size": 2**40}, ["hidden_size: got 1099511627776, expected an integer from 1 to"]),
        ({"num_hidden_layers": 10**9}, ["num_hidden_layers: got 1000000000"]),
        ({"num_attention_heads": 0}, ["num_attention_heads: got 0"]),
        ({"num_attention_heads": 3}, ["expected a multiple of num_key_value_heads 2"]),
        ({"num_attention_heads": 128}, ["head_dim: got 1, expected an even number"]),
        ({"head_dim": 15}, ["head_dim: got 15, expected an even number"]),
        ({"rms_norm_eps": float("nan")}, ["rms_norm_eps: got nan"]),
        ({"rms_norm_eps": -1e-5}, ["rms_norm_eps: got -1e-05"]),
        ({"tie_word_embeddings": 1}, ["tie_word_embeddings: got 1, expected true or false"]),
        (
            {"model_type": "qwen2", "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"},
            ["attention_bias: got True", "mlp_bias: got True", "hidden_act: got 'gelu', expected"],
        ),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor: got 0.5, expected 1.0"]),
        ({"layer_types": ["full_attention", "sliding_attention"]}, ["layer_types: got ["]),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"] * 2}, ["layer_types: got ["]),
        ({"model_type": "qwen3", "use_sliding_window": 1}, ["use_sliding_window: got 1"]),
        ({"num_local_experts": 8}, ["num_local_experts: got 8, expected 0"]),
        (
            {"model_type": "smollm3", "no_rope_layers": [1]},
            ["no_rope_layers: got [1], expected 0 or 1 for each of the 2 layers"],
        ),
        (
            {"model_type": "smollm3", "no_rope_layers": [], "num_hidden_layers": 0},
            ["no_rope_layers: got [], expected", "num_hidden_layers: got 0, expected an integer"],
        ),
        ({"model_type": "mistral", "layer_types": ["full_attention"] * 2}, ["layer_types: got ["]),
        ({"model_type": "mistral", "sliding_window": 0}, ["sliding_window: got 0, expected an"]),
        ({"model_type": "mistral", "hidden_act": "gelu"}, ["hidden_act: got 'gelu', expected"]),
        ({"model_type": "mixtral"}, ["model_type: got 'mixtral', expected one of"]),
        ({"model_type": "phi3small"}, ["model_type: got 'phi3small', expected one of"]),
        ({"model_type": "phi3", "lm_head_bias": True}, ["lm_head_bias: got True, expected False"]),
        ({"model_type": "phi3", "full_attn_mod": 2}, ["full_attn_mod: got 2, expected 1"]),
        (
            {"model_type": "phi3", "partial_rotary_factor": 1.5},
            ["partial_rotary_factor: got 1.5, expected at most 1.0"],
        ),
        (
            {"model_type": "phi3", "partial_rotary_factor": 0.2},
            ["partial_rotary_factor: got 0.2, expected one that rotates an even number of the 16"],
        ),
        (
            {
                "model_type": "phi3",
                "original_max_position_embeddings": 64,
                "rope_scaling": {
                    "type": "longrope",
                    "short_factor": [1.0] * 8,
                    "long_factor": [1.0] * 7,
                },
            },
            ["long_factor: got 7 numbers, expected 8"],
        ),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [0] * 8, "long_factor": "x"}},
            [
                "rope_scaling.original_max_position_embeddings: missing",
                "rope_scaling.short_factor: got [0, 0",
                "rope_scaling.long_factor: got 'x', expected a list of numbers from 1e-30 to 1e",
            ],
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 1}},
            ["rope_scaling.beta_fast: got 1.0, expected more than beta_slow 1.0"],
        ),
        (
            {"rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 2}},
            ["rope_theta: got 1.0, expected more than 1 with yarn"],
        ),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "beta_slow": 5e-324}}, ["got 5e-324"]),
        ({"rope_theta": 10**400}, ["rope_theta: got 1000"]),
        ({"rope_theta": 0}, ["rope_theta: got 0"]),
        ({"rope_parameters": 3}, ["rope_parameters: got 3, expected an object"]),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, ["rope_scaling.rope_type: got 'dyn"]),
        ({"rope_scaling": {"rope_type": ["x"]}}, ["rope_scaling.rope_type: got ['x']"]),
        ({"rope_scaling": {"type": "linear"}}, ["rope_scaling.factor: missing"]),
        ({"rope_scaling": {"rope_type": "llama3"}}, ["original_max_position_embeddings: missing"]),
        (
            {"rope_scaling": {"rope_type": "llama3", **SCALING, "high_freq_factor": 1.0}},
            ["high_freq_factor: got 1.0, expected more than low_freq_factor 1.0"],
        ),
        (
            {"rope_scaling": {"rope_type": "default", "factor": 4.0}},
            ["rope_scaling.factor: got 4.0, a key not supported"],
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {}},
            ["rope_scaling: got both it and rope_parameters"],
        ),
    ],
)
def test_what_is_refused(change: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(LLAMA | change, "some/config.json")
    assert "some/config.json" in str(error.value)
    for line in lines:
        assert line in str(error.value)


def test_all_problems_in_one_error() -> None:
    values = LLAMA | {"hidden_size": -1, "vocab_size": None, "num_experts": 1, "rope_theta": "x"}
    with pytest.raises(ConfigError) as error:
        read_config(values, "config.json")
    assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == [
        "hidden_size",
        "num_experts",
        "rope_theta",
        "vocab_size",
    ]


def test_a_problem_is_told_once() -> None:
    values = LLAMA | {"rope_scaling": {"type": "yarn", "factor": 2}}
    del values["max_position_embeddings"]
    with pytest.raises(ConfigError) as error:
        read_config(values, "config.json")
    assert str(error.value).count("max_position_embeddings") == 1


def test_model_needs_a_context() -> None:
    import torch

    config, _ = read_config(LLAMA, "config.json")
    with pytest.raises(ConfigError, match="context is 0, slots is 1"):
        build_model(config, context=0, kv_dtype=torch.float32)


def test_biases_that_no_config_has_are_refused() -> None:
    with pytest.raises(ValueError, match="qkv_bias"):
        read_common(ConfigReader({}, "config"), biases=("attention_bias", "qkv_bias"))


def test_families_are_keyed_by_name() -> None:
    assert all(name == family.name for name, family in FAMILIES.items())
    assert all(name == family.config.model_type for name, family in FAMILIES.items())
