"""A float checkpoint with real behaviour: SmolLM2 with its channels scaled by random factors.

    python benchmarks/scrambled_checkpoint.py SmolLM2-135M-Instruct.Q4_1.gguf FOLDER

Every real model that a package brings lies on a quantization grid, which flatters quantizers that
use the same grid. The function of a model does not change, and the grid goes, when the channels
between two linears are scaled (log-uniform in 0.5 to 2): what writes a channel is multiplied, what
reads it is divided. Tables that embedding and head share are left alone. Written in float32 with
the names of transformers; the perplexity of its fp32 program equals the source's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from edge_llm.llm.checkpoints.arrays import to_float32
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import TokenizerMetadata
from edge_llm.llm.families.llama import LlamaConfig
from edge_llm.tokenizers.readers.convert import from_gguf

Weights = dict[str, NDArray[np.float32]]


def scramble(weights: Weights, config: LlamaConfig, seed: int) -> None:
    """Scale the channels of every layer in place, in a way that leaves the function as it is."""
    random = np.random.default_rng(seed)

    def factors(count: int) -> NDArray[np.float32]:
        return np.exp(random.uniform(np.log(0.5), np.log(2.0), count)).astype(np.float32)

    repeat = config.num_attention_heads // config.num_key_value_heads
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        for norm, readers in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            c = factors(config.hidden_size)
            weights[f"{prefix}.{norm}.weight"] *= c
            for reader in readers:
                weights[f"{prefix}.{reader}.weight"] /= c
        c = factors(config.intermediate_size)
        weights[f"{prefix}.mlp.up_proj.weight"] *= c[:, None]
        weights[f"{prefix}.mlp.down_proj.weight"] /= c
        c = factors(config.num_key_value_heads * config.head_dim)
        heads = c.reshape(config.num_key_value_heads, config.head_dim)
        weights[f"{prefix}.self_attn.v_proj.weight"] *= c[:, None]
        weights[f"{prefix}.self_attn.o_proj.weight"] /= heads.repeat(repeat, axis=0).reshape(-1)


def config_json(config: LlamaConfig) -> dict[str, object]:
    """Return the config as transformers reads it, for ropes without scaling."""
    rope = config.rope_parameters
    if rope.scaling is not None:
        raise SystemExit(f"got rope scaling {rope.scaling}, expected none")
    plain = {field.name: getattr(config, field.name) for field in fields(config)}
    plain["rope_parameters"] = {"rope_type": "default", "rope_theta": rope.theta}
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.source)
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    if not isinstance(config, LlamaConfig) or not isinstance(tokenizer, TokenizerMetadata):
        raise SystemExit(f"{options.source} is no GGUF file of a Llama model")
    weights = {name: to_float32(checkpoint.tensor(name)).copy() for name in checkpoint.shapes}
    scramble(weights, config, options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, options.folder / "model.safetensors")
    document = from_gguf(tokenizer.values)
    (options.folder / "tokenizer.json").write_bytes(document.json)
    facts = {"add_bos_token": document.facts.add_bos, "chat_template": document.chat_template}
    (options.folder / "tokenizer_config.json").write_text(json.dumps(facts))
    (options.folder / "config.json").write_text(json.dumps(config_json(config), indent=2))
    stops = {"eos_token_id": list(checkpoint.generation.stop_ids)}
    (options.folder / "generation_config.json").write_text(json.dumps(stops))


if __name__ == "__main__":
    main()
