"""GGUF files against the Hugging Face checkpoints that they were made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import Checkpoint, TokenizerMetadata
from edge_llm.llm.config import FrequencyDivisors, LinearScaling
from edge_llm.llm.registry import load_model
from edge_llm.program.documents import GenerationDefaults

Factory = Callable[..., Path]

FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {}),
]


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    model = load_model(checkpoint.config, checkpoint.tensor, context=128, kv_dtype=torch.float32)
    tokens = torch.arange(100) * 7 % checkpoint.config.vocab
    every = torch.arange(100)
    result: torch.Tensor = model(tokens, every, torch.zeros_like(tokens), every)
    return result


@pytest.mark.parametrize(("family", "config"), FAMILIES)
def test_same_model_as_its_source(
    family: str, config: dict[str, Any], tiny_checkpoint: Factory, make_gguf: Factory
) -> None:
    folder = tiny_checkpoint(family, **config)
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert made.shapes == source.shapes
    for name in source.shapes:
        assert torch.equal(made.tensor(name), source.tensor(name)), name
    assert replace(made.config, rope_scaling=None) == replace(source.config, rope_scaling=None)
    assert isinstance(made.config.rope_scaling, FrequencyDivisors) == (family == "llama")
    expected = logits(source)
    assert float((logits(made) - expected).abs().max() / expected.std()) < 1e-4


@pytest.mark.parametrize("quant", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_block_formats(
    family: str, quant: str, tiny_checkpoint: Factory, make_gguf: Factory
) -> None:
    folder = tiny_checkpoint(family)
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder, quant))
    kind = getattr(gguf.GGMLQuantizationType, quant)
    dtype = {"F16": torch.float16, "BF16": torch.bfloat16}.get(quant, torch.float32)
    for name, shape in source.shapes.items():
        values, got = source.tensor(name).numpy(), made.tensor(name)
        if len(shape) == 2:
            assert got.dtype == dtype
            values = gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
        np.testing.assert_array_equal(got.float().numpy(), values, err_msg=name)


def test_documents(tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    folder = tiny_checkpoint("qwen2")
    path = make_gguf(folder, name="Tiny.F32")
    made = open_checkpoint(path)
    assert made.name == "Tiny.F32"
    assert made.license == "apache-2.0"
    assert made.sources == (path,)
    assert made.unread_config_keys == ()
    # <|im_end|> by its key; <|endoftext|>, a control token that no key names
    assert made.generation == GenerationDefaults(stop_ids=(258, 256))
    assert isinstance(made.tokenizer, TokenizerMetadata)
    assert made.tokenizer.values["tokenizer.ggml.model"] == "gpt2"
    assert len(made.tokenizer.values["tokenizer.ggml.tokens"]) == 265  # type: ignore[arg-type]
    assert open_checkpoint(path.parent).name == "Tiny.F32"  # a folder with just one


def test_metadata_beyond_the_least(tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_eot_token_id(5)
        writer.add_float32("general.sampling.temp", 0.6)
        writer.add_int32("general.sampling.top_k", 20)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(2.0)
        writer.add_rope_scaling_orig_ctx_len(128)
        writer.add_expert_count(0)

    made = open_checkpoint(make_gguf(tiny_checkpoint("qwen2"), edit=edit))
    assert made.generation == GenerationDefaults((258, 5, 256), temperature=0.6, top_k=20)
    assert made.config.rope_scaling == LinearScaling(2.0)
    assert made.config.norm_eps == 1e-6  # stored as float32, read as the decimal it stands for


REFUSED: dict[str, tuple[Callable[[gguf.GGUFWriter], None], type[Exception], str]] = {
    "unknown key of the architecture": (
        lambda w: w.add_float32("qwen2.logit_scale", 0.5),
        ConfigError,
        "qwen2.logit_scale: got 0.5, a key not supported",
    ),
    "experts": (
        lambda w: w.add_expert_count(8),
        ConfigError,
        "qwen2.expert_count: got 8, expected 0",
    ),
    "scaling": (
        lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN),
        ConfigError,
        "rope_scaling.factor: missing",
    ),
    "partial rotation": (
        lambda w: w.add_rope_dimension_count(8),
        ConfigError,
        "qwen2.rope.dimension_count: got 8, expected 16",
    ),
    "split": (
        lambda w: w.add_uint16("split.count", 2),
        CheckpointError,
        "is one part of a split model",
    ),
    "left-over tensor": (
        lambda w: w.add_tensor("blk.0.attn_sinks.weight", np.zeros(4, np.float32)),
        CheckpointError,
        "left over: 'blk.0.attn_sinks.weight' [4]",
    ),
    "misshapen tensor": (
        lambda w: w.add_tensor("output.weight", np.zeros((2, 64), np.float32)),
        CheckpointError,
        "shape: lm_head.weight: got [2, 64], expected [288, 64]",
    ),
    "unsupported type": (
        lambda w: w.add_tensor(
            "output.weight",
            np.zeros((288, 66), np.uint8),
            raw_dtype=gguf.GGMLQuantizationType.IQ2_XXS,
        ),
        CheckpointError,
        "type: 'output.weight': got IQ2_XXS, expected one of F32, F16, Q4_0, Q4_1, Q5_0,",
    ),
    "rope table of another size": (
        lambda w: w.add_tensor("rope_freqs.weight", np.ones(7, np.float32)),
        CheckpointError,
        "rope_freqs.weight: got shape [7]",
    ),
    "rope table with a zero": (
        lambda w: w.add_tensor("rope_freqs.weight", np.zeros(8, np.float32)),
        CheckpointError,
        "holds values that are not above 0",
    ),
    "rope table of an unsupported type": (
        lambda w: w.add_tensor(
            "rope_freqs.weight",
            np.zeros(66, np.uint8),
            raw_dtype=gguf.GGMLQuantizationType.IQ2_XXS,
        ),
        CheckpointError,
        "type: 'rope_freqs.weight': got IQ2_XXS",
    ),
    "stop id beyond the vocabulary": (
        lambda w: w.add_eot_token_id(288),
        CheckpointError,
        "tokenizer.ggml.eot_token_id: got 288, expected ids from 0 to 287",
    ),
    "sampling out of range": (
        lambda w: w.add_float32("general.sampling.top_p", 1.5),
        CheckpointError,
        "top_p: got 1.5",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    edit, kind, message = REFUSED[case]
    path = make_gguf(tiny_checkpoint("qwen2", tie_word_embeddings=True), edit=edit)
    with pytest.raises(kind) as error:
        open_checkpoint(path)
    assert message in str(error.value)
