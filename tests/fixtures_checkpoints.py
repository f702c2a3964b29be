"""Tiny random checkpoints as transformers writes them, with a tokenizer and a chat template."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CheckpointFactory = Callable[..., Path]

END_OF_TURN, END_OF_TEXT, START_OF_TURN = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
SPECIALS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# 256 bytes, a few merges and the specials fit with rows to spare, as in real models.
VOCAB = 288
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 258,
    "pad_token_id": None,
}
# For heads of 16, of which 12 columns rotate; short and long differ clearly.
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.5, 2.0, 3.0, 4.0, 6.0, 8.0],
}
# For heads of 16; the attention factor is LongRoPE's own at 256 tokens, as GGUF files have it.
PHIMOE_ROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0, 10.0],
    "short_mscale": math.sqrt(1 + math.log(256 / 64) / math.log(64)),
    "long_mscale": math.sqrt(1 + math.log(256 / 64) / math.log(64)),
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.4,
    "residual_multiplier": 0.7,
    "logits_scaling": 1.7,
}
MINISTRAL3_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "max_position_embeddings": 256,
    "beta_fast": 16.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.4,
}
GEMMA4_KINDS = ("sliding", "full", "sliding", "full", "sliding", "full", "full")
# What tells the families apart is on: scaling, biases, norms of heads with head_dim != dim / heads,
# partial rotation, windows shorter than the tests' prompts, layers without rotation.
FAMILY_SIZES: dict[str, dict[str, Any]] = {
    "exaone4": {
        "head_dim": 24,
        "num_hidden_layers": 4,
        "rope_parameters": LLAMA3_ROPE,
        "sliding_window": 19,
        "sliding_window_pattern": 3,
    },
    "gemma2": {
        "head_dim": 24,
        "sliding_window": 19,
        "query_pre_attn_scalar": 40,
        "attn_logit_softcapping": 0.7,
        "final_logit_softcapping": 2.5,
    },
    "gemma3_text": {
        "head_dim": 24,
        "num_hidden_layers": 4,
        "sliding_window": 19,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 40,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 5_000.0, "factor": 3.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 900.0},
        },
    },
    "gemma4_text": {
        "head_dim": 16,
        "per_layer_config": {str(layer): {"head_dim": 24} for layer in (1, 3, 5, 6)},
        "num_hidden_layers": 7,
        "num_kv_shared_layers": 3,
        "layer_types": [f"{kind}_attention" for kind in GEMMA4_KINDS],
        "sliding_window": 19,
        "tie_word_embeddings": True,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 32,
        "vocab_size_per_layer_input": VOCAB,
        "final_logit_softcapping": 2.5,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": 5_000.0,
                "partial_rotary_factor": 0.5,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 900.0},
        },
    },
    "gemma4_unified_text": {
        "head_dim": 16,
        "per_layer_config": {
            str(layer): {"head_dim": 24, "num_key_value_heads": 1} for layer in (1, 3, 4)
        },
        "num_hidden_layers": 5,
        "layer_types": [f"{kind}_attention" for kind in (*GEMMA4_KINDS[:4], "full")],
        "attention_k_eq_v": True,
        "sliding_window": 19,
        "tie_word_embeddings": True,
        "final_logit_softcapping": 2.5,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": 5_000.0,
                "partial_rotary_factor": 0.5,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 900.0},
        },
    },
    "granite": GRANITE,
    "granitemoehybrid": GRANITE
    | {
        "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "num_local_experts": 12,
        "num_experts_per_tok": 3,
        "intermediate_size": 32,
        "shared_intermediate_size": 160,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 24,
    },
    "lfm2": {
        "head_dim": 24,
        "num_hidden_layers": 5,
        "layer_types": ["conv", "full_attention", "conv", "conv", "full_attention"],
        "conv_L_cache": 4,
        "block_multiple_of": 32,
    },
    "gpt_oss": {
        "head_dim": 32,
        "num_hidden_layers": 3,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "swiglu_limit": 0.5,
        "sliding_window": 19,
        "rope_parameters": YARN_ROPE | {"truncate": False, "beta_fast": 8.0, "beta_slow": 1.0},
    },
    "lfm2_moe": {
        "head_dim": 24,
        "num_hidden_layers": 5,
        "layer_types": ["conv", "full_attention", "conv", "conv", "full_attention"],
        "conv_L_cache": 4,
        "num_dense_layers": 2,
        "num_experts": 12,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "routed_scaling_factor": 1.7,
    },
    "llama": {"rope_parameters": LLAMA3_ROPE},
    "ministral3": {"rope_parameters": MINISTRAL3_ROPE, "head_dim": 24},
    "mistral": {"sliding_window": 19, "head_dim": 24},
    "olmo3": {
        "num_hidden_layers": 4,
        "sliding_window": 19,
        "layer_types": [f"{kind}_attention" for kind in ("sliding", "full", "sliding", "full")],
        "rope_parameters": {
            "full_attention": YARN_ROPE,
            "sliding_attention": {"rope_type": "default", "rope_theta": 900.0},
        },
    },
    "olmoe": {
        "num_experts": 12,
        "num_experts_per_tok": 3,
        "intermediate_size": 32,
    },
    "phi3": {
        "rope_parameters": LONGROPE,
        "original_max_position_embeddings": 64,
        "sliding_window": 70,
    },
    "phimoe": {
        "rope_parameters": PHIMOE_ROPE,
        "attention_bias": True,
        "lm_head_bias": True,
        "num_local_experts": 12,
        "intermediate_size": 32,
        "router_jitter_noise": 0.2,  # so that some are near
        "sliding_window": 70,
    },
    "qwen2": {},
    "qwen2_moe": {
        "num_hidden_layers": 3,
        "num_experts": 12,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 160,
        "mlp_only_layers": [1],
    },
    "qwen3": {"head_dim": 32},
    "qwen3_moe": {
        "head_dim": 32,
        "num_hidden_layers": 3,
        "num_experts": 12,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
        "mlp_only_layers": [1],
    },
    "qwen3_5_text": {
        "head_dim": 32,
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 24,
        "linear_value_head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5_000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
    },
    "qwen3_5_moe_text": {
        "num_experts": 12,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 160,
        "head_dim": 32,
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 24,
        "linear_value_head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5_000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
    },
    "smollm3": {"num_hidden_layers": 3, "no_rope_layer_interval": 2},
}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointFactory:
    """``tiny_checkpoint(family, dtype="float32", shards=1, **config) -> folder``.

    ``family`` is a ``model_type`` of transformers; ``config`` overrides keys of its config.
    Weights are random with a fixed seed and large enough that logits differ clearly. Equal
    arguments give the same folder: copy it before changing anything in it.
    """
    made: dict[str, Path] = {}

    def make(family: str, *, dtype: str = "float32", shards: int = 1, **config: Any) -> Path:
        key = json.dumps([family, dtype, shards, config], sort_keys=True)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"tiny-{family}")
            write_tiny_checkpoint(folder, family, dtype=dtype, shards=shards, **config)
            made[key] = folder
        return made[key]

    return make


def write_tiny_checkpoint(
    folder: Path, family: str, *, dtype: str = "float32", shards: int = 1, **config: Any
) -> None:
    """Writes config, generation config, weights (fixed seed), tokenizer and chat template."""
    import torch

    model = random_model(family, **config).to(getattr(torch, dtype))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        model.save_pretrained(folder, max_shard_size=-(-size // shards) if shards > 1 else 2 * size)
    generation = {
        "eos_token_id": [258, 256],
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    write_tokenizer(folder)


def random_model(family: str, **config: Any) -> Any:
    """A transformers model in float32 with random weights."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    values = SIZES | FAMILY_SIZES.get(family, {}) | config
    made = transformers.CONFIG_MAPPING[family](**copy.deepcopy(values))  # which writes into them
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(made).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
                if family.startswith("gemma4") and name.endswith("q_norm.weight"):
                    parameter.data *= len(parameter) ** -0.5  # which nothing else scales
            elif (
                "conv." in name or "mamba.conv1d." in name
            ) and parameter.dim() == 3:  # few numbers, and each matters
                torch.nn.init.normal_(parameter)
            else:
                torch.nn.init.normal_(parameter, std=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("expert_bias"):
                torch.nn.init.normal_(buffer, std=0.1)
            elif name.endswith("layer_scalar"):
                torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return model


def reference_model(folder: Path, context: int | None = None) -> Any:
    """The transformers model of a checkpoint, in float32.

    It picks LongRoPE's factors by the length so far; with ``context`` it has those of that
    program's regime at every length, as programs do."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    rope = config.rope_parameters
    if context is not None and rope.get("rope_type") == "longrope":
        regime = "short" if context <= rope["original_max_position_embeddings"] else "long"
        rope["short_factor"] = rope["long_factor"] = rope[f"{regime}_factor"]
    return AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager"
    )


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE tokenizer: ids 0-255 are bytes, then specials 256-258, then merges."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: id_ for id_, symbol in enumerate(alphabet)}
    vocab |= {token: len(vocab) + index for index, token in enumerate(SPECIALS)}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "n"), ("an", "d"), ("Ġ", "and")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "add_bos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
