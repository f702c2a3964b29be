"""Checkpoints in GGUF files: weights, config and tokenizer in one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.generation import generation_defaults, token_ids
from edge_llm.llm.checkpoints.gguf_blocks import BLOCK_FORMATS, UNSUPPORTED_TYPES
from edge_llm.llm.checkpoints.gguf_file import GGUFFile, TensorEntry, read_gguf_file
from edge_llm.llm.checkpoints.source import (
    Checkpoint,
    Shape,
    TokenizerMetadata,
    check_parameters,
)
from edge_llm.llm.config import FrequencyDivisors, ModelConfig, shorten
from edge_llm.llm.family import Family
from edge_llm.llm.registry import FAMILIES, read_config

# Hugging Face's name of a config key -> the GGUF key behind "ARCHITECTURE.".
REQUIRED_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count",
    "num_hidden_layers": "block_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
OPTIONAL_KEYS = {
    "head_dim": "attention.key_length",
    "num_key_value_heads": "attention.head_count_kv",
    "rope_theta": "rope.freq_base",
    "vocab_size": "vocab_size",
}
# Keys that have one supported value, beside those that must equal the head dimension.
NEUTRAL_KEYS = {
    "attention.causal": True,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scaling.attn_factor": 1.0,
}
HEAD_DIM_KEYS = ("attention.value_length", "rope.dimension_count")
SCALING_TYPE, SCALING_FACTOR = "rope.scaling.type", "rope.scaling.factor"
ORIGINAL_CONTEXT = "rope.scaling.original_context_length"
# They describe how a scaling came to be; its outcome is in the type, the factor or ROPE_FREQS.
HARMLESS_KEYS = ("rope.scaling.finetuned", ORIGINAL_CONTEXT)

TENSOR_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
ROPE_FREQS = "rope_freqs.weight"

STOP_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
# The keys above hold one id each, while some families end a turn with either of two tokens.
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
CONTROL_TOKEN = 3  # in tokenizer.ggml.token_type
SAMPLING_KEYS = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}


def open_gguf(path: Path) -> Checkpoint:
    """Opens and checks a file; tensors are decoded later, one at a time.

    Raises:
        CheckpointError: a damaged file, or tensors that do not fit the metadata.
        ConfigError: metadata that cannot be honoured.
    """
    file = read_gguf_file(path)
    metadata = file.metadata
    family = _family(file)
    problems = _check_extents(file)
    config, interleaved = _config(file, family), family.gguf_interleaved
    names = {_parameter_name(name, family): name for name in file.tensors if name != ROPE_FREQS}
    shapes: dict[str, Shape] = {new: file.tensors[old].shape for new, old in names.items()}

    def read(name: str) -> torch.Tensor:
        stored = names[name]
        tensor = _decode(file, stored)
        within_layer = stored.split(".", 2)[-1]
        if within_layer in interleaved:
            return _half_split(tensor, config.head_dim)
        return tensor

    license_ = metadata.get("general.license")
    return Checkpoint(
        name=path.stem,
        config=config,
        shapes=check_parameters(config, shapes, str(path), problems),
        read=read,
        generation=generation_defaults(
            {name: metadata.get(f"general.sampling.{key}") for name, key in SAMPLING_KEYS.items()},
            _stop_ids(metadata, config.vocab),
            str(path),
        ),
        tokenizer=TokenizerMetadata(
            {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
        ),
        sources=(path,),
        unread_config_keys=(),  # an unknown key of the architecture is an error
        license=license_ if isinstance(license_, str) else None,
    )


def _family(file: GGUFFile) -> Family:
    known = {
        family.gguf_architecture: family
        for family in FAMILIES.values()
        if family.gguf_architecture is not None
    }
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in known:
        raise ConfigError(
            f"{file.path}: general.architecture: got {shorten(name)}, "
            f"expected one of {', '.join(known)}"
        )
    if file.metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(f"{file.path} is one part of a split model, expected a whole one")
    return known[name]


def _config(file: GGUFFile, family: Family) -> ModelConfig:
    """Translates the architecture's keys to Hugging Face's, and has the family read them."""
    prefix = f"{family.gguf_architecture}."
    given = {
        key.removeprefix(prefix): value
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    values: dict[str, object] = {"model_type": family.name}
    problems = [
        f"{prefix}{key}: missing" for key in REQUIRED_KEYS.values() if given.get(key) is None
    ]
    for name, key in (REQUIRED_KEYS | OPTIONAL_KEYS).items():
        values[name] = given.pop(key, None)
    embedding = file.tensors.get("token_embd.weight")
    if values["vocab_size"] is None and embedding is not None:
        values["vocab_size"] = embedding.shape[0]
    dim, heads = values["hidden_size"], values["num_attention_heads"]
    if values["head_dim"] is None and isinstance(dim, int) and isinstance(heads, int) and heads > 0:
        values["head_dim"] = dim // heads
    values["tie_word_embeddings"] = "output.weight" not in file.tensors
    factor = given.pop(SCALING_FACTOR, None)
    kind = given.pop(SCALING_TYPE, "none" if factor is None else "linear")
    if kind != "none":
        values["rope_scaling"] = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        values["original_max_position_embeddings"] = given.pop(ORIGINAL_CONTEXT, None)
    for key, neutral in (NEUTRAL_KEYS | dict.fromkeys(HEAD_DIM_KEYS, values["head_dim"])).items():
        value = given.pop(key, neutral)
        if value != neutral:
            problems.append(f"{prefix}{key}: got {shorten(value)}, expected {neutral!r}")
    for key in HARMLESS_KEYS:
        given.pop(key, None)
    problems += [
        f"{prefix}{key}: got {shorten(value)}, a key not supported" for key, value in given.items()
    ]
    if problems:
        listing = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{file.path} cannot be honoured:{listing}")
    config, _ = read_config(values, str(file.path))
    return _with_divisors(file, config)


def _with_divisors(file: GGUFFile, config: ModelConfig) -> ModelConfig:
    """Llama 3's scaling is stored as its outcome: one divisor for each rotary frequency."""
    entry = file.tensors.get(ROPE_FREQS)
    if entry is None:
        return config
    if config.rope_scaling is not None or entry.shape != (config.head_dim // 2,):
        raise CheckpointError(
            f"{file.path}: {ROPE_FREQS}: got shape {list(entry.shape)} and rope scaling "
            f"{config.rope_scaling}, expected [{config.head_dim // 2}] and no other scaling"
        )
    divisors = _decode(file, ROPE_FREQS).float()
    if not bool((divisors.isfinite() & (divisors > 0)).all()):
        raise CheckpointError(f"{file.path}: {ROPE_FREQS} holds values that are not above 0")
    return replace(config, rope_scaling=FrequencyDivisors(tuple(divisors.tolist())))


def _parameter_name(name: str, family: Family) -> str:
    """The parameter's name in the module; an unknown name stays, and is left over."""
    block = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    if block is None:
        return TENSOR_NAMES.get(name, name)
    inner = family.gguf_layer_names.get(block[2])
    return name if inner is None else f"model.layers.{block[1]}.{inner}"


def _check_extents(file: GGUFFile) -> list[str]:
    """A line for each tensor whose type is unknown or whose bytes are not all in the file.

    Raises:
        CheckpointError: a rope table at fault, since it is read before the lines are reported.
    """
    problems: dict[str, str] = {}
    for name, entry in file.tensors.items():
        block = BLOCK_FORMATS.get(entry.type)
        if block is None:
            got = UNSUPPORTED_TYPES.get(entry.type, f"type {entry.type}")
            expected = ", ".join(known.name for known in BLOCK_FORMATS.values())
            problems[name] = f"type: {shorten(name)}: got {got}, expected one of {expected}"
        elif entry.shape[-1] % block.size:
            problems[name] = (
                f"shape: {shorten(name)}: got rows of {entry.shape[-1]}, "
                f"expected a multiple of {block.size} for {block.name}"
            )
        elif entry.offset + _stored_bytes(entry) > len(file.data):
            problems[name] = (
                f"truncated: {shorten(name)} ends at byte {entry.offset + _stored_bytes(entry)}, "
                f"the file at {len(file.data)}"
            )
    if ROPE_FREQS in problems:
        raise CheckpointError(f"{file.path} is damaged: {problems[ROPE_FREQS]}")
    return list(problems.values())


def _stored_bytes(entry: TensorEntry) -> int:
    block = BLOCK_FORMATS[entry.type]
    return math.prod(entry.shape) // block.size * block.bytes


def _decode(file: GGUFFile, name: str) -> torch.Tensor:
    entry = file.tensors[name]
    block = BLOCK_FORMATS[entry.type]
    raw = file.data[entry.offset : entry.offset + _stored_bytes(entry)]
    return block.decode(raw.reshape(-1, block.bytes)).reshape(entry.shape)


def _half_split(tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of each head from (0, d, 1, d+1, ...) back to (0, 1, ..., d, d+1, ...)."""
    pairs = tensor.reshape(-1, head_dim // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)


def _stop_ids(metadata: Mapping[str, object], vocab: int) -> tuple[int, ...]:
    ids: list[int] = []
    for key in STOP_KEYS:
        ids += token_ids(metadata.get(key), vocab, key)
    tokens, kinds = (metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    if isinstance(tokens, list) and isinstance(kinds, list):
        ids += [
            id_
            for id_, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
            if kind == CONTROL_TOKEN and token in STOP_TOKENS and id_ < vocab
        ]
    return tuple(dict.fromkeys(ids))
