"""GGUF files made from Hugging Face checkpoints, as llama.cpp's converter lays them out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from fixtures_gguf_encoders import encode
from numpy.typing import NDArray

GGUFFactory = Callable[..., Path]
Edit = Callable[[gguf.GGUFWriter], None]

INTERLEAVED = ("llama", "mistral", "ministral3", "smollm3", "granite", "granitemoehybrid")
GEMMA = ("gemma2", "gemma3_text")
QWEN35 = ("qwen3_5_text", "qwen3_5_moe_text")
GRANITE = ("granite", "granitemoehybrid")


def interleave(rows: Any, heads: int) -> Any:
    """Rows of an array or a tensor in the order that Meta gives to q and k, and llama.cpp's
    converter to those of the llama architecture."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


@pytest.fixture
def make_gguf(tmp_path: Path) -> GGUFFactory:
    """``make_gguf(folder, quant="F32", name="tiny", edit=None, parts=1) -> file``: matrices in
    ``quant``, vectors in F32. ``edit(writer)`` runs last and may add metadata. Of several parts the
    first is returned."""

    def make(
        folder: Path,
        quant: str = "F32",
        *,
        name: str = "tiny",
        edit: Edit | None = None,
        parts: int = 1,
    ) -> Path:
        config = json.loads((folder / "config.json").read_text())
        tensors = gguf_tensors(folder, config)
        share = -(-len(tensors) // parts)
        paths = []
        for index in range(parts):
            ending = f"-{index + 1:05d}-of-{parts:05d}" if parts > 1 else ""
            paths.append(tmp_path / f"{name}{ending}.gguf")
            writer = gguf.GGUFWriter(paths[-1], architecture(config))
            if index == 0:
                add_metadata(writer, config)
                add_tokenizer(writer, folder)
            if parts > 1:
                writer.add_uint16("split.no", index)
                writer.add_uint16("split.count", parts)
                writer.add_int32("split.tensors.count", len(tensors))
            for key in list(tensors)[index * share : (index + 1) * share]:
                add_tensor(writer, key, tensors[key], quant)
            if edit is not None:
                edit(writer)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
        return paths[0]

    return make


def architecture(config: dict[str, Any]) -> str:
    name: str = config["model_type"]
    if config.get("use_bidirectional_attention"):
        return "gemma-embedding"
    others = {
        "gemma3_text": "gemma3",
        "gemma4_text": "gemma4",
        "granitemoehybrid": "granitehybrid" if folding_layers(config) else "granite",
        "ministral3": "mistral3",
        "mistral": "llama",
        "olmo3": "olmo2",
        "lfm2_moe": "lfm2moe",
        "qwen2_moe": "qwen2moe",
        "qwen3_moe": "qwen3moe",
        "gpt_oss": "gpt-oss",
        "qwen3_5_text": "qwen35",
        "qwen3_5_moe_text": "qwen35moe",
    }
    return others.get(name, name)


def folding_layers(config: dict[str, Any]) -> set[int]:
    """Return which layers of a Granite 4 are state spaces."""
    kinds = ("mamba", "linear_attention")
    return {layer for layer, kind in enumerate(config.get("layer_types", ())) if kind in kinds}


def tensor_names(config: dict[str, Any]) -> gguf.TensorNameMap:
    """Hugging Face's names of tensors to GGUF's, as llama.cpp's converter maps them."""
    architectures = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    return gguf.get_tensor_name_map(
        architectures[architecture(config)], config["num_hidden_layers"]
    )


def rope_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return the rope parameters, where there are some for each kind of layer those that GGUF
    holds: of the layers without a window."""
    rope: dict[str, Any] = config["rope_parameters"]
    full: dict[str, Any] = rope.get("full_attention", rope)
    return full


def head_dim(config: dict[str, Any]) -> int:
    given: int | None = config.get("head_dim")
    return given or config["hidden_size"] // config["num_attention_heads"]


def feed_forward_length(config: dict[str, Any]) -> int:
    size: int = config["intermediate_size"]
    if config.get("block_auto_adjust_ff_dim"):
        multiple = config["block_multiple_of"]
        size = int(config["block_ffn_dim_multiplier"] * int(2 * size / 3))
        size = multiple * ((size + multiple - 1) // multiple)
    return size


def add_metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    family, rope = config["model_type"], rope_of(config)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    ffn = feed_forward_length(config)
    if family == "granitemoehybrid" and not config["num_local_experts"]:
        ffn = config["shared_intermediate_size"]  # what published ones have as both
    writer.add_head_count(config["num_attention_heads"])
    if family == "gemma4_text":
        add_gemma4(writer, config)
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_file_type(0)
        writer.add_license("apache-2.0")
        return
    writer.add_feed_forward_length(ffn)
    if family in ("lfm2", "lfm2_moe"):
        heads = config["num_key_value_heads"]
        writer.add_head_count_kv([heads * (kind != "conv") for kind in config["layer_types"]])
        writer.add_layer_norm_rms_eps(config["norm_eps"])
        writer.add_shortconv_l_cache(config["conv_L_cache"])
        writer.add_vocab_size(config["vocab_size"])
    elif family == "granitemoehybrid" and folding_layers(config):
        heads, folding = config["num_key_value_heads"], folding_layers(config)
        layers = range(config["num_hidden_layers"])
        writer.add_head_count_kv([heads * (layer not in folding) for layer in layers])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if family in ("mistral", "ministral3", "qwen3", "qwen3_moe", "gpt_oss", *QWEN35, *GEMMA):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if family == "lfm2_moe":
        writer.add_leading_dense_block_count(config["num_dense_layers"])
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if "num_experts_per_tok" in config:
        writer.add_expert_count(config.get("num_local_experts", config.get("num_experts")))
        writer.add_expert_used_count(config["num_experts_per_tok"])
        inner = config.get("moe_intermediate_size", config["intermediate_size"])
        if family not in ("olmoe", "phimoe"):
            writer.add_expert_feed_forward_length(inner)
    if "shared_expert_intermediate_size" in config:
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    if family == "gpt_oss":
        writer.add_sliding_window(config["sliding_window"])
    if family in QWEN35:
        heads, values = config["linear_num_value_heads"], config["linear_value_head_dim"]
        writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
        writer.add_ssm_state_size(config["linear_key_head_dim"])
        writer.add_ssm_group_count(config["linear_num_key_heads"])
        writer.add_ssm_time_step_rank(heads)
        writer.add_ssm_inner_size(heads * values)
        writer.add_full_attention_interval(1 + config["layer_types"].index("full_attention"))
        writer.add_rope_dimension_count(int(rope["partial_rotary_factor"] * head_dim(config)))
        writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    if family in GEMMA:
        writer.add_sliding_window(config["sliding_window"])
        if config["final_logit_softcapping"]:
            writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    if family in GRANITE:
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if family == "granitemoehybrid":
        writer.add_expert_shared_feed_forward_length(config["shared_intermediate_size"])
        writer.add_ssm_conv_kernel(config["mamba_d_conv"])
        writer.add_ssm_state_size(config["mamba_d_state"])
        writer.add_ssm_group_count(config["mamba_n_groups"])
        writer.add_ssm_inner_size(config["mamba_expand"] * config["hidden_size"])
        writer.add_ssm_time_step_rank(config["mamba_n_heads"])
        writer.add_rope_scaling_finetuned(config["position_embedding_type"] == "rope")
    if family in INTERLEAVED:
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(head_dim(config))
    if family in ("exaone4", "olmo3") and config["sliding_window"]:
        writer.add_sliding_window(config["sliding_window"])
        kinds = config["layer_types"]
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in kinds])
    if family == "exaone4":
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if family in ("phi3", "phimoe"):
        writer.add_sliding_window(config["sliding_window"] or 0)
        fraction = rope.get("partial_rotary_factor", 1.0)
        writer.add_rope_dimension_count(int(fraction * head_dim(config)))
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    if rope["rope_type"] == "longrope":
        original = config["original_max_position_embeddings"]
        scale = math.log(config["max_position_embeddings"] / original) / math.log(original)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + scale))  # type: ignore[arg-type]
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in (
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
            ("mscale_all_dim", writer.add_rope_scaling_yarn_log_mul),
            ("llama_4_scaling_beta", writer.add_attn_temperature_scale),
        ):
            if key in rope:
                add(rope[key])
    writer.add_file_type(0)
    writer.add_license("apache-2.0")


def add_gemma4(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """Add what the converter says of Gemma 4 alone."""
    sliding = [kind == "sliding_attention" for kind in config["layer_types"]]
    (full, *_) = config["per_layer_config"].values()
    kv_heads, layers = config["num_key_value_heads"], config["num_hidden_layers"]
    if config["attention_k_eq_v"]:
        others = full.get("num_key_value_heads", kv_heads)
        writer.add_head_count_kv([kv_heads if slides else others for slides in sliding])
    else:
        writer.add_head_count_kv(kv_heads)
    shared, ffn = config["num_kv_shared_layers"], config["intermediate_size"]
    if config["use_double_wide_mlp"]:
        ffn = [ffn * (2 if layer >= layers - shared else 1) for layer in range(layers)]
    writer.add_feed_forward_length(ffn)
    writer.add_shared_kv_layers(shared)
    writer.add_embedding_length_per_layer_input(config["hidden_size_per_layer_input"] or 0)
    writer.add_sliding_window_pattern(sliding)
    writer.add_sliding_window(config["sliding_window"])
    writer.add_key_length(full["head_dim"])
    writer.add_value_length(full["head_dim"])
    writer.add_key_length_swa(config["head_dim"])
    writer.add_value_length_swa(config["head_dim"])
    writer.add_rope_dimension_count(full["head_dim"])
    writer.add_rope_dimension_count_swa(config["head_dim"])
    writer.add_rope_freq_base_swa(config["rope_parameters"]["sliding_attention"]["rope_theta"])
    if config["final_logit_softcapping"]:
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if config["enable_moe_block"]:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["top_k_experts"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def gemma4_tensors(
    tensors: dict[str, Any], config: dict[str, Any]
) -> dict[str, NDArray[np.float32]]:
    """Return Gemma 4's tensors: gates of experts and what they let through stay in one."""
    names, found = tensor_names(config), {}
    own = {"router.scale": "ffn_gate_inp.scale", "router.per_expert_scale": "ffn_down_exps.scale"}
    for name, tensor in tensors.items():
        values = tensor.to(dtype=tensor.dtype).float().numpy()
        layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
        if layer and layer[2] in own:
            found[f"blk.{layer[1]}.{own[layer[2]]}"] = values
            continue
        if name.endswith("layer_scalar") or ".experts." in name:
            name += ".weight"
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        found[stored] = values
    full = config["rope_parameters"]["full_attention"]
    (sizes, *_) = config["per_layer_config"].values()
    pairs = int(sizes["head_dim"] * full["partial_rotary_factor"] / 2)
    divisors = np.full(sizes["head_dim"] // 2, 1e30, np.float32)
    divisors[:pairs] = 1.0
    return {"rope_freqs.weight": divisors, **found}


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())
    tokens = [token for token, _ in sorted(model["model"]["vocab"].items(), key=lambda kv: kv[1])]
    specials = {token["content"] for token in model["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in specials else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["model"]["merges"]])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    writer.add_chat_template(settings["chat_template"])


def gguf_tensors(folder: Path, config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Every tensor in float32, by its GGUF name."""
    import torch
    from safetensors.torch import load_file

    names = tensor_names(config)
    if config["model_type"] == "gemma4_text":
        return gemma4_tensors(load_file(folder / "model.safetensors"), config)
    return rope_tables(config) | dict(
        converted(name, tensor.to(torch.float32).numpy(), config, names)
        for name, tensor in stacked(parted(load_file(folder / "model.safetensors"), config)).items()
    )


def converted(
    name: str, values: NDArray[np.float32], config: dict[str, Any], names: gguf.TensorNameMap
) -> tuple[str, NDArray[np.float32]]:
    """Return GGUF's name of a tensor of a Hugging Face folder, and what it holds there."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    part = name.split(".")[-2]
    if config["model_type"] in INTERLEAVED and part in heads:
        values = interleave(values, heads[part])
    if "conv.conv.weight" in name:
        values = values.squeeze(1)
    if config["model_type"] in GEMMA and name.endswith("norm.weight"):
        values = values + np.float32(1.0)
    if ".feed_forward.experts." in name:
        name = name.removeprefix("model.")
    if name.endswith(".expert_bias"):
        name += ".bias"
    if config["model_type"] in QWEN35:
        name, values = qwen35(name, values, config)
    if ".mamba." in name:
        name, values = mamba2(name, values, config)
    stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert stored is not None, name
    return stored, np.ascontiguousarray(values)


def rope_tables(config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Return the tensors that hold what a rope's scaling comes to."""
    rope = rope_of(config)
    if rope["rope_type"] == "llama3":
        return {"rope_freqs.weight": llama3_divisors(config)}
    if rope["rope_type"] == "longrope":
        return {
            f"rope_factors_{regime}.weight": np.array(rope[f"{regime}_factor"], np.float32)
            for regime in ("long", "short")
        }
    return {}


def qwen35(
    name: str, values: NDArray[np.float32], config: dict[str, Any]
) -> tuple[str, NDArray[np.float32]]:
    """Return a tensor of Qwen3.5 as it is stored, and the name that the map knows: value heads in
    the order of a repetition of key heads."""
    key_heads, heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
    first = 2 * key_heads * config["linear_key_head_dim"]

    def tiled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows in heads, (key head, its values) -> (its values, key head)."""
        split = rows.reshape(key_heads, heads // key_heads, len(rows) // heads, *rows.shape[1:])
        return split.swapaxes(0, 1).reshape(rows.shape)

    if name.endswith("norm.weight") and "linear_attn" not in name:
        return name, values + np.float32(1.0)
    if "linear_attn" not in name or name.endswith("linear_attn.norm.weight"):
        return name, values
    if "conv1d" in name:
        values = values.squeeze(1)
    if "conv1d" in name or "in_proj_qkv" in name:
        return name, np.concatenate([values[:first], tiled(values[first:])])
    if "out_proj" in name:
        return name, tiled(values.T).T
    if "A_log" in name:
        values = -np.exp(values)
    return name.replace("dt_bias", "dt_proj.bias"), tiled(values)


def mamba2(
    name: str, values: NDArray[np.float32], config: dict[str, Any]
) -> tuple[str, NDArray[np.float32]]:
    """Return a tensor of a state space as it is stored, and the name that the map knows."""
    if name.endswith("conv1d.weight"):
        values = values.squeeze(1)
    elif name.endswith(".A_log"):
        values = -np.exp(values)[:, None]
    elif name.endswith(".D"):
        values = values[:, None]
    elif name.endswith(".norm.weight"):
        values = values.reshape(config["mamba_n_groups"], -1)
    return name.replace("dt_bias", "dt_proj.bias"), values


def parted(tensors: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Return tensors, gate and up of Granite 4 and gpt-oss apart."""
    found: dict[str, Any] = {}
    shared = "mlp.shared_expert" if config.get("num_local_experts") else "mlp"
    for name, tensor in tensors.items():
        plain = name.replace("shared_mlp.output_linear", f"{shared}.down_proj")
        if "shared_mlp.input_linear" in name:
            for part, half in zip(("gate", "up"), tensor.chunk(2), strict=True):
                found[name.replace("shared_mlp.input_linear", f"{shared}.{part}_proj")] = half
        elif "block_sparse_moe.input_linear" in name:
            for part, half in zip(("gate", "up"), tensor.chunk(2, dim=1), strict=True):
                there = f"mlp.experts.{part}_proj"
                found[name.replace("block_sparse_moe.input_linear", there)] = half
        elif ".experts.gate_up_proj" in name:  # of gpt-oss
            layer, bias = name.split(".gate_up_proj")
            rows = tensor if bias else tensor.transpose(1, 2)
            kind = ".bias" if bias else ".weight"
            found[f"{layer}.gate_proj{kind}"] = rows[:, 0::2]
            found[f"{layer}.up_proj{kind}"] = rows[:, 1::2]
        elif name.endswith(".experts.down_proj"):
            found[f"{name}.weight"] = tensor.transpose(1, 2)
        elif name.endswith(".experts.down_proj_bias"):
            found[name.replace("_bias", ".bias")] = tensor
        elif name.endswith(".sinks"):
            found[f"{name}.weight"] = tensor
        else:
            found[plain] = tensor
    return found


def stacked(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors with the matrices of a layer's experts in one: ``mlp.experts.up_proj``."""
    import torch

    stacks: dict[str, dict[int, Any]] = {}
    rest = {}
    for name, tensor in tensors.items():
        if found := re.fullmatch(r"(.+\.experts)\.(\d+)\.(\w+)(\.weight)", name):
            stacks.setdefault(f"{found[1]}.{found[3]}{found[4]}", {})[int(found[2])] = tensor
        else:
            rest[name] = tensor
    return rest | {
        name: torch.stack([parts[i] for i in range(len(parts))]) for name, parts in stacks.items()
    }


def add_tensor(writer: gguf.GGUFWriter, name: str, values: NDArray[np.float32], quant: str) -> None:
    floats = ("shortconv.conv", "conv1d", "ssm_a", "ssm_d", "ssm_norm")
    if values.ndim == 1 or quant == "F32" or any(part in name for part in floats):
        writer.add_tensor(name, values)
    else:
        kind = gguf.GGMLQuantizationType[quant]
        rows = encode(values.reshape(-1, values.shape[-1]), quant)
        writer.add_tensor(name, rows.reshape(*values.shape[:-1], -1), raw_dtype=kind)


def llama3_divisors(config: dict[str, Any]) -> NDArray[np.float32]:
    """Return what the converter stores for llama3 scaling: divisors of the base frequencies."""
    rope, dim = config["rope_parameters"], head_dim(config)
    base = rope["rope_theta"] ** -(np.arange(0, dim, 2, dtype=np.float64) / dim)
    wavelength = 2 * np.pi / base
    original = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (original / wavelength - low) / (high - low)
    ramp = 1 / ((1 - smooth) / rope["factor"] + smooth)
    divisors = np.where(
        wavelength < original / high,
        1.0,
        np.where(wavelength > original / low, rope["factor"], ramp),
    )
    return divisors.astype(np.float32)
