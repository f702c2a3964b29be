"""Exports a Hugging Face folder of a Llama or Qwen3 model as ExecuTorch's own recipe does it: 8da4w
in groups of 32, 4-bit embedding, XNNPACK, its SDPA and KV cache operators.

python export_executorch.py FOLDER OUT.pte CONTEXT
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from executorch.examples.models.llama.export_llama_lib import export_llama
from executorch.extension.llm.export.config.llm_config import LlmConfig, ModelType
from safetensors.torch import load_file

NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "self_attn.q_norm": "attention.q_norm_fn",
    "self_attn.k_norm": "attention.k_norm_fn",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}


def main() -> None:
    folder, target, context = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        weights, params = Path(scratch) / "weights.pth", Path(scratch) / "params.json"
        torch.save(parameters(folder), weights)
        params.write_text(json.dumps(shape(facts)), encoding="utf-8")

        config = LlmConfig()
        config.base.model_class = (
            ModelType.qwen3_0_6b if facts["model_type"] == "qwen3" else ModelType.llama3_2
        )
        config.base.checkpoint, config.base.params = str(weights), str(params)
        config.base.metadata = '{"get_bos_id": 1, "get_eos_ids": [2]}'
        config.model.use_kv_cache = config.model.use_sdpa_with_kv_cache = True
        config.quantization.qmode = "8da4w"
        config.quantization.group_size = 32
        config.quantization.embedding_quantize = "4,32"
        config.backend.xnnpack.enabled = config.backend.xnnpack.extended_ops = True
        config.export.max_seq_length = config.export.max_context_length = context
        # a name that ends so is the whole path: output_dir is not looked at
        config.export.output_name = str(target.resolve())
        export_llama(config)


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights under Meta's names; rows of heads stay as Hugging Face has them."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            stem, kind = name.rsplit(".", 1)
            if stem.startswith("model.layers."):
                layer, rest = stem.removeprefix("model.layers.").split(".", 1)
                found[f"layers.{layer}.{NAMES[rest]}.{kind}"] = tensor
            else:
                found[f"{NAMES[stem]}.{kind}"] = tensor
    found.setdefault("output.weight", found["tok_embeddings.weight"])
    return found


def shape(facts: dict[str, Any]) -> dict[str, Any]:
    rope = facts.get("rope_parameters") or facts
    heads = facts["num_attention_heads"]
    values = {
        "dim": facts["hidden_size"],
        "hidden_dim": facts["intermediate_size"],
        "ffn_dim_multiplier": 1,
        "n_layers": facts["num_hidden_layers"],
        "n_heads": heads,
        "n_kv_heads": facts["num_key_value_heads"],
        "head_dim": facts.get("head_dim") or facts["hidden_size"] // heads,
        "vocab_size": facts["vocab_size"],
        "norm_eps": facts["rms_norm_eps"],
        "rope_theta": rope["rope_theta"],
        "use_scaled_rope": rope.get("rope_type") == "llama3",
        "use_hf_rope": True,
    }
    if facts["model_type"] == "qwen3":
        values |= {"use_qk_norm": True, "qk_norm_before_rope": True}
    return values


if __name__ == "__main__":
    main()
