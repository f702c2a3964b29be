"""GGUF files against the Hugging Face checkpoints that they were made from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from fixtures_checkpoints import LLAMA3_ROPE, YARN_ROPE
from fixtures_gguf_encoders import encode
from stored_tensors import tensor_of

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.gguf.blocks import BLOCK_FORMATS
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import Checkpoint, TokenizerMetadata
from edge_llm.llm.models.build import load_model
from edge_llm.llm.rope import FrequencyDivisors, LinearScaling
from edge_llm.program.documents import GenerationDefaults
from edge_llm.program.formats import WEIGHT_FORMATS

Factory = Callable[..., Path]

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
YARN_8 = YARN_ROPE | {"factor": 8.0}
# Llama 3.1's rule with the length that real checkpoints have.
LLAMA3_8192 = LLAMA3_ROPE | {"original_max_position_embeddings": 8192}
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"rope_parameters": LLAMA3_8192}),
    ("llama", {"rope_parameters": LLAMA3_8192, "tie_word_embeddings": True}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    ("mistral", {"sliding_window": None}),
    ("phi3", {}),
    ("phi3", {"rope_parameters": PLAIN_ROPE}),
    ("phi3", {"sliding_window": None, "tie_word_embeddings": True}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen2", {"rope_parameters": YARN_8}),
    ("qwen3", {}),
    # llama.cpp knows no other interval of layers without rotation
    ("smollm3", {"no_rope_layer_interval": 4, "no_rope_layers": None, "num_hidden_layers": 5}),
]


def same_facts(one: Any, other: Any) -> bool:
    """Return whether two configs, maybe of two families, agree in all that both have."""
    first, second = asdict(one), asdict(other)
    return all(first[key] == second[key] for key in first.keys() & second.keys())


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    model = load_model(checkpoint.config, checkpoint.tensor, context=128, kv_dtype=torch.float32)
    tokens = torch.arange(100) * 7 % checkpoint.config.vocab_size
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
        assert torch.equal(tensor_of(made, name), tensor_of(source, name)), name
    assert same_facts(made.config, source.config)
    assert made.config.model_type == ("llama" if family == "mistral" else family)
    assert torch.equal(logits(made), logits(source))


def test_a_window_makes_a_llama_a_mistral(tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    """llama.cpp's converter drops the window; others may state it."""
    folder = tiny_checkpoint("mistral")
    source = open_checkpoint(folder)
    without = open_checkpoint(make_gguf(folder))
    assert without.config.model_type == "llama"
    assert [without.config.attention(layer).window for layer in range(2)] == [0, 0]
    made = open_checkpoint(make_gguf(folder, edit=lambda w: w.add_sliding_window(19)))
    assert made.config == source.config


def test_any_other_divisors_are_kept(tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    folder = tiny_checkpoint("llama")
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert isinstance(made.config.rope_parameters.scaling, FrequencyDivisors)
    assert replace(made.config, rope_parameters=source.config.rope_parameters) == source.config
    expected = logits(source)
    assert float((logits(made) - expected).abs().max() / expected.std()) < 1e-4


HELD = {
    "Q4_0": "i4g32",
    "Q4_1": "u4g32m",
    "Q5_0": "i5g32",
    "Q5_1": "u5g32m",
    "Q8_0": "i8g32",
    "Q4_K": "u4g32k",
    "Q5_K": "u5g32k",
    "Q6_K": "i6g16k",
    "IQ4_NL": "nl4g32",
    "IQ4_XS": "nl4g32k",
    "MXFP4": "e2m1g32",
}
QUANTS = [block.name for block in BLOCK_FORMATS.values() if block.name != "F32"]


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_block_formats(
    family: str, quant: str, tiny_checkpoint: Factory, make_gguf: Factory
) -> None:
    # Rows of whole super-blocks.
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
    folder = tiny_checkpoint(family, rope_parameters=PLAIN_ROPE, **sizes)
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder, quant))
    kind = getattr(gguf.GGMLQuantizationType, quant)
    dtype = {"F16": torch.float16, "BF16": torch.bfloat16}.get(quant, torch.float32)
    matrices = {name for name, shape in source.shapes.items() if len(shape) == 2}
    for name in source.shapes:
        values, got = tensor_of(source, name).numpy(), tensor_of(made, name)
        if name in matrices:
            assert got.dtype == dtype
            values = gguf.quants.dequantize(encode(values, quant), kind)
        np.testing.assert_array_equal(got.float().numpy(), values, err_msg=name)
    held = HELD.get(quant)
    formats = dict.fromkeys(matrices, WEIGHT_FORMATS[held]) if held else {}
    assert made.integer_formats == formats
    for name in formats:
        stored = made.integers(name)
        assert stored.format == formats[name]
        assert np.array_equal(stored.dequantize(), made.tensor(name)), name
    assert {made.stored_as[name] for name in matrices} == {quant}


def test_scales_that_are_no_numbers(tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    data = np.full((288, 36), 0x7C, np.uint8)  # fp16 0x7C7C is not a number
    path = make_gguf(
        tiny_checkpoint("qwen2", tie_word_embeddings=True),
        edit=lambda w: w.add_tensor(
            "output.weight", data, raw_dtype=gguf.GGMLQuantizationType.Q4_0
        ),
    )
    made = open_checkpoint(path)
    with pytest.raises(CheckpointError, match="scale has values that are not finite"):
        made.integers("lm_head.weight")


def test_parts_are_one_model(tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    folder = tiny_checkpoint("llama")
    source = open_checkpoint(folder)
    first = make_gguf(folder, parts=3)
    paths = sorted(first.parent.iterdir())
    assert [path.name for path in paths] == [f"tiny-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for path in (*paths, first.parent):
        made = open_checkpoint(path)
        assert (made.name, made.sources) == ("tiny", tuple(paths))
        for name in source.shapes:
            assert torch.equal(tensor_of(made, name), tensor_of(source, name)), name
    make_gguf(folder, name="other")
    with pytest.raises(CheckpointError, match=r"several \.gguf files: name one"):
        open_checkpoint(first.parent)


def test_parts_that_are_not_all_there(tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    folder = tiny_checkpoint("llama")
    first = make_gguf(folder, parts=3)
    second, third = (first.with_name(f"tiny-0000{n}-of-00003.gguf") for n in (2, 3))
    kept = second.read_bytes()
    shutil.copyfile(third, second)
    with pytest.raises(CheckpointError, match="got part 2 of 3, expected 1 of 3"):
        open_checkpoint(first)
    second.unlink()
    with pytest.raises(CheckpointError, match=r"of which tiny-00002-of-00003\.gguf is missing in"):
        open_checkpoint(third)
    second.write_bytes(kept[:-5000])
    sizes = f"it needs {len(kept)} bytes and has {len(kept) - 5000}"
    problem = rf"00002-of-00003\.gguf is truncated: {sizes}$"
    with pytest.raises(CheckpointError, match=problem) as cut:
        open_checkpoint(first)
    assert "fetch it again" in str(cut.value.hint)
    with pytest.raises(CheckpointError, match="expected a name like NAME-00001-of-00003"):
        open_checkpoint(first.rename(first.with_name("renamed.gguf")))


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
        writer.add_float32("general.sampling.xtc_probability", 0.5)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(2.0)
        writer.add_rope_scaling_orig_ctx_len(128)
        writer.add_expert_count(0)

    made = open_checkpoint(make_gguf(tiny_checkpoint("qwen2"), edit=edit))
    assert made.generation == GenerationDefaults((258, 5, 256), temperature=0.6, top_k=20)
    (note,) = made.notes
    assert note.endswith(
        "general.sampling.xtc_probability 0.5 is left out, which nothing here follows"
    )
    assert made.config.rope_parameters.scaling == LinearScaling(2.0)
    assert made.config.rms_norm_eps == 1e-6  # stored as float32, read as the decimal it stands for


def test_keys_as_llama_cpp_reads_them(tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    """One value for each layer, all equal; -1 as no token; the scaling's key of the first files."""
    folder = tiny_checkpoint("qwen2", num_hidden_layers=3)
    source = open_checkpoint(make_gguf(folder))

    def arrays(writer: gguf.GGUFWriter) -> None:
        for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
            value = writer.kv_data[0].pop(f"qwen2.{key}").value
            writer.add_array(f"qwen2.{key}", [value] * 3)

    assert open_checkpoint(make_gguf(folder, edit=arrays)).config == source.config

    def no_end(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop("tokenizer.ggml.eos_token_id")
        writer.add_eos_token_id(2**32 - 1)

    made = open_checkpoint(make_gguf(folder, edit=no_end))
    assert made.generation.stop_ids == (256, 258)  # control tokens that are known to end a turn
    assert isinstance(made.tokenizer, TokenizerMetadata)
    assert "tokenizer.ggml.eos_token_id" not in made.tokenizer.values

    def signed(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop("tokenizer.ggml.eos_token_id")
        writer.add_int32("tokenizer.ggml.eos_token_id", -1)

    assert open_checkpoint(make_gguf(folder, edit=signed)).generation == made.generation

    for factor, expected in ((2.0, LinearScaling(2.0)), (0.0, None)):
        path = make_gguf(
            folder, edit=lambda w, f=factor: w.add_float32("qwen2.rope.scale_linear", f)
        )
        assert open_checkpoint(path).config.rope_parameters.scaling == expected


@pytest.mark.parametrize("kind", [gguf.TokenType.NORMAL, gguf.TokenType.USER_DEFINED])
def test_tokens_that_end_a_turn_do_whatever_their_type(
    kind: gguf.TokenType, tiny_checkpoint: Factory, make_gguf: Factory
) -> None:
    def retype(writer: gguf.GGUFWriter) -> None:
        tokens = writer.kv_data[0]["tokenizer.ggml.tokens"].value
        writer.kv_data[0].pop("tokenizer.ggml.token_type")
        writer.add_token_types([kind] * len(tokens))
        writer.kv_data[0].pop("tokenizer.ggml.eos_token_id")
        writer.add_eos_token_id(256)

    made = open_checkpoint(make_gguf(tiny_checkpoint("qwen2"), edit=retype))
    assert made.generation.stop_ids == (256, 258)


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
        "rope_parameters.factor: missing",
    ),
    "partial rotation": (
        lambda w: w.add_rope_dimension_count(8),
        ConfigError,
        "partial_rotary_factor: got 0.5, expected 1.0",
    ),
    "a window in some layers": (
        lambda w: w.add_sliding_window(64),
        ConfigError,
        "qwen2.attention.sliding_window: got 64, expected 0",
    ),
    "attention factor": (
        lambda w: w.add_float32("qwen2.rope.scaling.attn_factor", 1.5),
        ConfigError,
        "qwen2.rope.scaling.attn_factor: got 1.5, expected 1.0",
    ),
    "split": (
        lambda w: w.add_uint16("split.count", 2),
        CheckpointError,
        "tiny.gguf is one of 2 parts of a model, expected a name like",
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
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, tiny_checkpoint: Factory, make_gguf: Factory) -> None:
    edit, kind, message = REFUSED[case]
    path = make_gguf(tiny_checkpoint("qwen2", tie_word_embeddings=True), edit=edit)
    with pytest.raises(kind) as error:
        open_checkpoint(path)
    assert message in str(error.value)
