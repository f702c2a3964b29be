"""Drawing the blueprints of the known families from what PyTorch traces.

Models are traced at two sets of sizes that have no number in common. What the plan of one says by
name must be what that of the other says, so that a number that only happens to equal another one is
found out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from itertools import product

import torch

from edge_llm.errors import ExportError
from edge_llm.export.backends.registry import get_backend
from edge_llm.export.lowering.trace import traced_plan
from edge_llm.llm.blueprints.blueprint import Blueprint, draw
from edge_llm.llm.blueprints.quantities import structure
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.models.build import build_model, tied_parameters
from edge_llm.llm.registry import FAMILIES, read_config

# No number of one, nor a product of them that a model has, is another one.
_PROBES = (
    {
        "vocab_size": 1013,
        "hidden_size": 704,
        "intermediate_size": 1409,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 56,
        "linear_num_key_heads": 5,
        "linear_num_value_heads": 15,
        "linear_key_head_dim": 26,
        "linear_value_head_dim": 34,
        "linear_conv_kernel_dim": 11,
        "rms_norm_eps": 0.000123,
        "max_position_embeddings": 257,
        "embedding_multiplier": 11.7,
        "attention_multiplier": 0.0371,
        "residual_multiplier": 0.219,
        "logits_scaling": 6.73,
        "shared_intermediate_size": 1409,
        "mamba_n_heads": 44,
        "mamba_d_head": 32,
        "mamba_d_state": 46,
        "mamba_d_conv": 7,
        "time_step_limit": [0.00123, 7.7],
        # LFM2's, which others do not read.
        "norm_eps": 0.000123,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1, 4, 5],
        "conv_L_cache": 5,
    },
    {
        "vocab_size": 907,
        "hidden_size": 610,
        "intermediate_size": 1201,
        "num_hidden_layers": 7,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "head_dim": 72,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 12,
        "linear_key_head_dim": 38,
        "linear_value_head_dim": 31,
        "linear_conv_kernel_dim": 13,
        "rms_norm_eps": 0.000321,
        "max_position_embeddings": 131,
        "embedding_multiplier": 5.9,
        "attention_multiplier": 0.0517,
        "residual_multiplier": 0.337,
        "logits_scaling": 3.71,
        "shared_intermediate_size": 1201,
        "mamba_n_heads": 20,
        "mamba_d_head": 61,
        "mamba_d_state": 29,
        "mamba_d_conv": 6,
        "time_step_limit": [0.00321, 5.3],
        "norm_eps": 0.000321,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [0, 3],
        "conv_L_cache": 9,
    },
)

# What the configs of a family must say besides, of so many layers.
_NEEDED: Mapping[str, Callable[[int], Mapping[str, object]]] = {
    "olmo3": lambda layers: {  # which then has two ropes
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 16,
        },
    },
    "olmoe": lambda layers: {
        "num_experts": 23 + layers,
        "num_experts_per_tok": 5 + layers,
    },
    "phimoe": lambda layers: {
        "num_attention_heads": 3 * layers,
        "num_key_value_heads": 3,  # 2 are the experts of a token
        "num_local_experts": 23 + layers,
        "router_jitter_noise": 0.013 + layers / 1000,
    },
    "gpt_oss": lambda layers: {
        "num_local_experts": 23 + layers,
        "num_experts_per_tok": 5 + layers,
        "swiglu_alpha": 1.3 + layers,
        "swiglu_limit": 2.7 + layers,
    },
    "quantized_llama": lambda layers: {
        "intermediate_size": 2 ** (layers + 2),  # which a Hadamard transform has
        "adapter_rank": 23 + layers,
    },
    "qwen2_moe": lambda layers: {
        "moe_intermediate_size": 331 + layers,
        "shared_expert_intermediate_size": 501 + layers,
        "num_experts": 23 + layers,
        "num_experts_per_tok": 5 + layers,
        "mlp_only_layers": [*range(1, min(3, layers))],
    },
    "qwen3_5_moe_text": lambda layers: {
        "moe_intermediate_size": 331 + layers,
        "shared_expert_intermediate_size": 501 + layers,
        "num_experts": 43 + layers,
        "num_experts_per_tok": 11 + layers,
    },
    "qwen3_moe": lambda layers: {
        "moe_intermediate_size": 331 + layers,
        "num_experts": 23 + layers,
        "num_experts_per_tok": 5 + layers,
        "mlp_only_layers": [*range(1, min(3, layers))],
    },
    "lfm2_moe": lambda layers: {
        "moe_intermediate_size": 331 + layers,
        "num_experts": 23 + layers,
        "num_experts_per_tok": 5 + layers,
        "routed_scaling_factor": 0.61 + layers / 100,
    },
    "gemma4_unified_text": lambda layers: {
        "global_head_dim": 90 + 4 * layers,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2)
        + ["full_attention"] * (layers % 2),
    },
    "gemma4_text": lambda layers: {
        "global_head_dim": 90 + 4 * layers,
        "num_kv_shared_layers": max(0, layers - 4),
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2)
        + ["full_attention"] * (layers % 2),
        "hidden_size_per_layer_input": 40 + layers,
        "vocab_size_per_layer_input": 2000 + layers,
        "num_experts": 23 + layers,
        "top_k_experts": 5 + layers,
        "moe_intermediate_size": 331 + layers,
    },
    "granitemoehybrid": lambda layers: {
        "num_local_experts": 23 + layers,
        "num_experts_per_tok": 5 + layers,
        "intermediate_size": 331 + layers,
        "position_embedding_type": "rope",
        "layer_types": ["attention" if layer % 3 == 1 else "mamba" for layer in range(layers)],
    },
}

_GEMMA4_ALIKE = {"attention_k_eq_v": True, "num_global_key_value_heads": 3}
_GEMMA4_LARGE = _GEMMA4_ALIKE | {"hidden_size_per_layer_input": None, "num_kv_shared_layers": 0}
# What tells models of a family apart beside its flags, the first for all: each has a plan of its
# own, or kinds of layers that those of the others lack.
_VARIANTS: Mapping[str, tuple[Mapping[str, object], ...]] = {
    "gemma4_text": (
        {},
        {"use_double_wide_mlp": True},
        _GEMMA4_LARGE,
        _GEMMA4_LARGE | {"enable_moe_block": True},
    ),
    "gemma4_unified_text": ({}, _GEMMA4_ALIKE),
    "granitemoehybrid": (
        {},
        {"position_embedding_type": "nope"},
        {"num_local_experts": 0},
        {"num_local_experts": 0, "position_embedding_type": "nope"},
    ),
}
# Flags of a family's config that its variants decide, or that all published models agree on: one
# of another kind is traced.
_NOT_DRAWN: Mapping[str, frozenset[str]] = {
    "granitemoehybrid": frozenset({"rotates", "has_experts", "mamba_conv_bias", "mamba_proj_bias"}),
}

# The values of a field that decide which operators there are, by its type as it is written.
_SETTINGS: Mapping[object, tuple[object, ...]] = {
    "bool": (False, True),
    "float | None": (None, 0.7331),
}


def blueprints_of(family: str) -> Mapping[str, Blueprint]:
    """Return the blueprints of a family: one for each setting of the flags of its config, with and
    without each number that it can go without, by `structure`.

    Raises:
        ExportError: a plan that cannot be drawn, or two that differ in more than sizes.
    """
    drawn: dict[str, Blueprint] = {}
    for flags, variant in product(_flags(family), _VARIANTS.get(family, ({},))):
        first, second = (
            _draw({"model_type": family, **flags, **probe, **needed(family, probe), **variant})
            for probe in _PROBES
        )
        if first != second:
            raise ExportError(f"{family} with {flags}: the plan changes with the sizes")
        name, blueprint = first
        drawn[name] = blueprint if name not in drawn else _joined(drawn[name], blueprint)
    return dict(sorted(drawn.items()))


def _joined(first: Blueprint, second: Blueprint) -> Blueprint:
    """Return what two blueprints of one structure have, together.

    Raises:
        ExportError: they differ in what both have.
    """
    steps = {**second.steps, **first.steps}
    if {**first.steps, **second.steps} != steps or first.tied != second.tied:
        raise ExportError("two plans of one structure differ")
    return Blueprint(dict(sorted(steps.items())), first.tied)


def needed(family: str, values: Mapping[str, object]) -> Mapping[str, object]:
    """Return what a config of ``values`` must say besides to be one of ``family`` that is
    supported."""
    layers = values["num_hidden_layers"]
    assert isinstance(layers, int)
    return _NEEDED[family](layers) if family in _NEEDED else {}


def _flags(family: str) -> Iterator[dict[str, object]]:
    """Yield every setting of the flags that a family's config has, and of the numbers that it can
    go without."""
    settings = {
        field.name: _SETTINGS[field.type]
        for field in fields(FAMILIES[family].config)
        if field.type in _SETTINGS and field.name not in _NOT_DRAWN.get(family, ())
    }
    for values in product(*settings.values()):
        yield dict(zip(settings, values, strict=True))


def _draw(values: Mapping[str, object]) -> tuple[str, Blueprint]:
    config, _ = read_config(values, "probe")
    context = config.max_position_embeddings
    plan = traced_plan(config, context, get_backend("native").operators)
    return structure(config), draw(config, context, plan, _tied(config))


def _tied(config: DecoderConfig) -> Mapping[str, str]:
    return tied_parameters(build_model(config, context=1, kv_dtype=torch.float32))
