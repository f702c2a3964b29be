"""A checkpoint of a true shape with random weights: N(0, 0.02), fixed seed, bfloat16, as
transformers writes it, with a tokenizer of bytes. One with experts has fewer layers than the model,
and is written layer by layer, since it need not fit in memory.

    python benchmarks/random_checkpoint.py llama3.2-1b FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from fixtures_checkpoints import write_tokenizer

AUTO: Any = transformers.AutoModelForCausalLM
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3.2-1b": (
        "Llama",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "qwen3-0.6b": (
        "Qwen3",
        {
            "vocab_size": 151936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
    ),
    "gemma3-1b": (
        "Gemma3Text",
        {
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "sliding_window": 512,
            "max_position_embeddings": 32768,
        },
    ),
    "qwen3-30b-a3b": (
        "Qwen3Moe",
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "norm_topk_prob": True,
            "num_hidden_layers": 8,  # of 48
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
            "tie_word_embeddings": False,
        },
    ),
    "gpt-oss-20b": (
        "GptOss",
        {
            "vocab_size": 201088,
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "num_local_experts": 32,
            "num_experts_per_tok": 4,
            "num_hidden_layers": 4,  # of 24
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "sliding_window": 128,
            "max_position_embeddings": 131072,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 4096,
            },
            "tie_word_embeddings": False,
        },
    ),
    "lfm2-350m": (
        "Lfm2",
        {
            "vocab_size": 65536,
            "hidden_size": 1024,
            "intermediate_size": 6656,  # of which the adjustment makes 4,608
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "full_attn_idxs": [2, 5, 8, 10, 12, 14],
            "conv_L_cache": 3,
            "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
    ),
    "qwen3.5-0.8b": (
        "Qwen3_5Text",
        {
            "vocab_size": 248320,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 24,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 16,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4,
            "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000000.0,
                "partial_rotary_factor": 0.25,
                "mrope_section": [11, 11, 10],
                "mrope_interleaved": True,
            },
        },
    ),
    "phi4-mini": (
        "Phi3",
        {
            "vocab_size": 200064,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "sliding_window": 262144,
            "pad_token_id": None,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.75,
                # speed does not depend on the factors
                "short_factor": [1.0] * 48,
                "long_factor": [1.0 + 0.5 * i for i in range(48)],
            },
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    family, shape = SHAPES[options.shape]
    common = {"tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": 258}
    config = getattr(transformers, f"{family}Config")(**(common | shape))
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    if "num_experts_per_tok" in shape:
        write_by_layer(config, options.folder)
    else:
        model = AUTO.from_config(config)
        model.save_pretrained(options.folder, max_shard_size="1GB")
    write_tokenizer(options.folder)


def write_by_layer(config: Any, folder: Path) -> None:
    """Write the checkpoint of a model with experts, a file for each layer and one for the rest."""
    with torch.device("meta"):
        model = AUTO.from_config(config)
    config.architectures, config.dtype = [type(model).__name__], torch.bfloat16
    config.save_pretrained(folder)
    files: dict[str, dict[str, torch.Size]] = {}
    for name, shape in published(model.state_dict(), fused=config.model_type == "gpt_oss"):
        layer = name.split(".")[2] if name.startswith("model.layers.") else ""
        files.setdefault(layer, {})[name] = shape
    where: dict[str, str] = {}
    for number, shapes in enumerate(files.values(), 1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors"
        save_file(
            {name: random(name, shape) for name, shape in shapes.items()},
            folder / file,
            metadata={"format": "pt"},
        )
        where |= dict.fromkeys(shapes, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where}, indent=1), encoding="utf-8"
    )


def random(name: str, shape: torch.Size) -> torch.Tensor:
    """Return one parameter. The embedding is N(0, 8), so that what attention makes tokens have in
    common stays small beside what they differ in, and experts are chosen about equally often: with
    512 tokens each of 128 has 16 to 49 rows, while of N(0, 0.02) one has nearly all."""
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    return torch.empty(shape).normal_(std=8.0 if "embed_tokens" in name else 0.02)


def published(
    parameters: dict[str, torch.Tensor], *, fused: bool
) -> Iterator[tuple[str, torch.Size]]:
    """Yield names and shapes as checkpoints have them: if not ``fused``, a matrix for each expert,
    gate and up apart."""
    for name, tensor in parameters.items():
        owner, _, kind = name.rpartition(".")
        if fused or not owner.endswith(".experts"):
            yield name, tensor.shape
            continue
        for expert, matrix in enumerate(tensor):
            parts = {"down_proj": matrix}
            if kind == "gate_up_proj":
                parts = dict(zip(("gate_proj", "up_proj"), matrix.chunk(2), strict=True))
            for part, one in parts.items():
                yield f"{owner}.{expert}.{part}.weight", one.shape


if __name__ == "__main__":
    main()
