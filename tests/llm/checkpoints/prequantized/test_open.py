"""GPTQ, AWQ, compressed-tensors and torchao folders: integers to the bit, and what is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_quantized import (
    Array,
    Quantized,
    awq,
    choose,
    compressed,
    gptq,
    requantized_folder,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stored_tensors import tensor_of

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import Checkpoint
from edge_llm.program.formats import WEIGHT_FORMATS

Tiny = Callable[..., Path]
Made = tuple[Path, dict[str, Quantized]]
Make = Callable[..., Made]

SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}
DOWN = "model.layers.0.mlp.down_proj.weight"
PACKED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group"},
        }
    },
    "ignore": ["lm_head"],
}


@pytest.fixture
def make(tiny_checkpoint: Tiny, tmp_path: Path) -> Make:
    """``make(settings, encode) -> (folder, chosen)``."""

    def run(
        settings: dict[str, Any],
        encode: Callable[[str, Array], tuple[Quantized, dict[str, Array]]],
        family: str = "llama",
    ) -> Made:
        folder = tmp_path / "quantized"
        chosen = requantized_folder(tiny_checkpoint(family, **SIZES), folder, settings, encode)
        return folder, chosen

    return run


def gptq_folder(
    make: Make, group: int, *, bits: int = 4, symmetric: bool = True, version: int = 1
) -> Made:
    settings = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric}
    if version == 2:
        settings["checkpoint_format"] = "gptq_v2"

    def encode(module: str, weight: Array) -> tuple[Quantized, dict[str, Array]]:
        made = choose(weight, group, bits=bits, symmetric=symmetric)
        return made, gptq(module, made, bits=bits, less=2 - version)

    return make(settings, encode)


def awq_folder(make: Make, group: int, *, symmetric: bool) -> Made:
    def encode(module: str, weight: Array) -> tuple[Quantized, dict[str, Array]]:
        made = choose(weight, group, symmetric=symmetric)
        return made, awq(module, made)

    settings = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group,
        "version": "gemm",
        "zero_point": not symmetric,
    }
    return make(settings, encode)


def compressed_folder(make: Make, group: int, bits: int = 4, *, symmetric: bool = True) -> Made:
    def encode(module: str, weight: Array) -> tuple[Quantized, dict[str, Array]]:
        made = choose(weight, group, bits=bits, symmetric=symmetric)
        return made, compressed(module, made, bits=bits, symmetric=symmetric)

    settings = json.loads(json.dumps(PACKED))
    scheme = settings["config_groups"]["group_0"]["weights"]
    scheme |= {"num_bits": bits, "symmetric": symmetric}
    return make(settings, encode)


def assert_taken_over(checkpoint: Checkpoint, chosen: dict[str, Quantized], form: str) -> None:
    """The integers are those that were chosen, to the last one, and stand for the same values."""
    assert checkpoint.integer_formats == dict.fromkeys(chosen, WEIGHT_FORMATS[form])
    group = WEIGHT_FORMATS[form].group
    for name, made in chosen.items():
        integers = checkpoint.integers(name)
        assert integers.format.name == form
        spread = integers.scale.repeat(group, axis=1)
        assert np.array_equal(spread, made.scales[:, made.groups])
        if integers.minimum is None:
            assert np.array_equal(integers.codes, made.q - 8)
        else:
            assert np.array_equal(integers.codes, made.q)
            zeros = integers.minimum.repeat(group, axis=1)
            assert np.array_equal(zeros, made.zeros[:, made.groups])
        assert np.array_equal(integers.dequantize(), made.weight)
        assert_values(checkpoint, name, made)


def assert_values(checkpoint: Checkpoint, name: str, made: Quantized) -> None:
    tensor = tensor_of(checkpoint, name)
    assert tensor.dtype == torch.float32
    assert np.array_equal(tensor.numpy(), made.weight)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("group", "taken"), [(32, 32), (64, 64), (128, 128), (-1, 128)])
def test_gptq_symmetric(make: Make, group: int, taken: int, version: int) -> None:
    folder, chosen = gptq_folder(make, group, version=version)
    checkpoint = open_checkpoint(folder)
    assert_taken_over(checkpoint, chosen, f"i4g{taken}")
    assert checkpoint.notes == (f"checkpoint quantized with gptq: 7 matrices hold i4g{taken}",)
    assert checkpoint.stored_as[DOWN] == f"gptq, i4g{taken}"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("group", "taken"), [(32, 32), (64, 64), (128, 128), (-1, 128)])
def test_gptq_with_zero_points(make: Make, group: int, taken: int, version: int) -> None:
    folder, chosen = gptq_folder(make, group, version=version, symmetric=False)
    assert_taken_over(open_checkpoint(folder), chosen, f"u4g{taken}z")


@pytest.mark.parametrize(("bits", "reason"), [(8, "8 bits with zero points"), (2, "2 bits")])
def test_gptq_that_is_read_as_floats(make: Make, bits: int, reason: str) -> None:
    folder, chosen = gptq_folder(make, 32, bits=bits, symmetric=False)
    checkpoint = open_checkpoint(folder)
    assert not checkpoint.integer_formats
    assert checkpoint.notes == (
        f"checkpoint quantized with gptq: 7 matrices are read as floats ({reason})",
    )
    for name, made in chosen.items():
        assert_values(checkpoint, name, made)


def test_gptq_in_order_of_activations(make: Make) -> None:
    random = np.random.default_rng(0)

    def encode(module: str, weight: Array) -> tuple[Quantized, dict[str, Array]]:
        order = random.permutation(np.arange(weight.shape[1]) // 64)
        made = choose(weight, 64, order=order)
        return made, gptq(module, made)

    settings = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": True}
    folder, chosen = make(settings, encode)
    checkpoint = open_checkpoint(folder)
    assert not checkpoint.integer_formats
    assert "columns in another order" in checkpoint.notes[0]
    for name, made in chosen.items():
        assert_values(checkpoint, name, made)


def test_zero_points_one_below_the_middle_turn_the_sign(make: Make) -> None:
    def encode(module: str, weight: Array) -> tuple[Quantized, dict[str, Array]]:
        made = choose(weight, 32)
        made.zeros[:, ::2] = 7  # every other group spans [-7, 8]
        return made, gptq(module, made)

    folder, chosen = make({"quant_method": "gptq", "bits": 4, "group_size": 32}, encode)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.integer_formats == dict.fromkeys(chosen, WEIGHT_FORMATS["i4g32"])
    for name, made in chosen.items():
        assert np.array_equal(checkpoint.integers(name).dequantize(), made.weight)


@pytest.mark.parametrize(("symmetric", "form"), [(True, "i4g64"), (False, "u4g64z")])
def test_awq(make: Make, symmetric: bool, form: str) -> None:
    folder, chosen = awq_folder(make, 64, symmetric=symmetric)
    assert_taken_over(open_checkpoint(folder), chosen, form)


@pytest.mark.parametrize(
    ("group", "symmetric", "form"),
    [(32, True, "i4g32"), (-1, True, "i4g128"), (64, False, "u4g64z"), (-1, False, "u4g128z")],
)
def test_compressed_tensors(make: Make, group: int, symmetric: bool, form: str) -> None:
    folder, chosen = compressed_folder(make, group, symmetric=symmetric)
    assert_taken_over(open_checkpoint(folder), chosen, form)


def test_scales_that_are_not_finite(make: Make) -> None:
    folder, _ = gptq_folder(make, 32)
    tensors = load_file(folder / "model.safetensors")
    tensors[DOWN.replace("weight", "scales")][0, 0] = torch.inf
    save_file(tensors, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"down_proj\.qweight: scale has values that are not"):
        checkpoint.integers(DOWN)


@pytest.mark.parametrize(("group", "form"), [(-1, "i8"), (64, "i8g32"), (32, "i8g32")])
@pytest.mark.parametrize("method", [gptq_folder, compressed_folder])
def test_eight_bits(make: Make, method: Callable[..., Made], group: int, form: str) -> None:
    folder, chosen = method(make, group, bits=8)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.integer_formats == dict.fromkeys(chosen, WEIGHT_FORMATS[form])
    assert set(checkpoint.inexact) == set(chosen)  # there may be codes of -128
    for name, made in chosen.items():
        assert_values(checkpoint, name, made)
        integers = checkpoint.integers(name)
        assert np.array_equal(integers.codes, np.maximum(made.q - 128, -127))
        scales = integers.scale.repeat(integers.shape[1] // integers.scale.shape[1], axis=1)
        assert np.array_equal(scales, made.scales[:, made.groups])


def test_eight_bits_with_zero_points(make: Make) -> None:
    folder, chosen = compressed_folder(make, -1, bits=8, symmetric=False)
    checkpoint = open_checkpoint(folder)
    assert not checkpoint.integer_formats
    for name, made in chosen.items():
        assert_values(checkpoint, name, made)


def test_scales_that_float16_cannot_hold(make: Make) -> None:
    folder, chosen = gptq_folder(make, 32)
    tensors = load_file(folder / "model.safetensors")
    name = DOWN.replace("weight", "scales")
    exact = tensors[name]
    tensors[name] = exact.float() * 1.0001  # which float16 rounds
    save_file(tensors, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    assert set(checkpoint.integer_formats) == set(chosen)
    assert set(checkpoint.inexact) == {DOWN}
    values, kept = checkpoint.tensor(DOWN), checkpoint.integers(DOWN).dequantize()
    assert 0 < np.abs(kept - values).max() <= np.abs(values).max() * 2.0**-11

    tensors[name] = exact.float() * 1e-5  # of which it has fewer bits
    save_file(tensors, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    assert set(chosen) - set(checkpoint.integer_formats) == {DOWN}
    assert checkpoint.notes[1].endswith("1 matrices are read as floats (scales beyond float16)")


def test_biases_of_zeros_that_the_model_has_not(make: Make) -> None:
    folder, _ = gptq_folder(make, 32)
    tensors = load_file(folder / "model.safetensors")
    name = DOWN.replace("weight", "bias")
    tensors[name] = torch.zeros(128, dtype=torch.float16)
    save_file(tensors, folder / "model.safetensors")
    assert name not in open_checkpoint(folder).shapes
    tensors[name] = torch.ones(128, dtype=torch.float16)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"left over: 'model\.layers\.0\.mlp\.down_proj\.bias'"
    ):
        open_checkpoint(folder)


def write_torchao(folder: Path, target: Path, kind: str) -> Any:
    """transformers' own writer; returns the quantized model."""
    from torchao import quantization as ao
    from transformers import AutoModelForCausalLM, TorchAoConfig

    config = {
        "8da4w": lambda: ao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4, weight_granularity=ao.PerGroup(32)
        ),
        "int4": lambda: ao.IntxWeightOnlyConfig(
            weight_dtype=torch.int4, granularity=ao.PerGroup(64)
        ),
        "int8": lambda: ao.IntxWeightOnlyConfig(weight_dtype=torch.int8),
        "int8 rows": ao.Int8WeightOnlyConfig,
    }[kind]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, quantization_config=TorchAoConfig(quant_type=config)
        )
        model.save_pretrained(target)
    for extra in ("tokenizer.json", "tokenizer_config.json"):
        (target / extra).write_bytes((folder / extra).read_bytes())
    return model


@pytest.mark.parametrize(
    ("kind", "form"), [("8da4w", "i4g32"), ("int4", "i4g64"), ("int8", "i8"), ("int8 rows", "i8")]
)
def test_torchao(kind: str, form: str, tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    model = write_torchao(tiny_checkpoint("llama", **SIZES), tmp_path / "ao", kind)
    checkpoint = open_checkpoint(tmp_path / "ao")
    weight = model.get_parameter(DOWN)
    expected = weight.qdata.float() * weight.scale.float().repeat_interleave(
        256 // weight.scale.shape[1], dim=1
    )
    assert torch.equal(tensor_of(checkpoint, DOWN), expected)
    assert set(checkpoint.integer_formats.values()) == {WEIGHT_FORMATS[form]}
    assert len(checkpoint.integer_formats) == 7
    integers = checkpoint.integers(DOWN)
    assert np.array_equal(integers.codes, weight.qdata.clamp(min=-127 if form == "i8" else -8))
    assert np.array_equal(integers.scale.astype(np.float32), weight.scale.float())


def test_torchao_of_another_class(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    write_torchao(tiny_checkpoint("llama", **SIZES), tmp_path / "ao", "int4")
    path = tmp_path / "ao" / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata[DOWN] = metadata[DOWN].replace("IntxUnpackedToInt8Tensor", "Int4TilePackedTo4dTensor")
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(ConfigError, match=r"torchao 'Int4TilePackedTo4dTensor', expected Intx"):
        open_checkpoint(tmp_path / "ao")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bits": ({"bits": 3}, r"bits: got 3, expected one of \(2, 4, 8\)"),
    "no bits": ({"bits": None}, "bits: got None, expected an integer"),
    "group": ({"group_size": 0}, "group_size: got 0, expected -1 or a number above 0"),
    "marlin": ({"checkpoint_format": "marlin"}, "checkpoint_format: got 'marlin'"),
    "dynamic": ({"dynamic": {"+:.*": {"bits": 8}}}, "dynamic: got"),
    "words": ({"pack_dtype": "int8"}, "pack_dtype: got 'int8', expected int32"),
    "method": ({"quant_method": "hqq"}, "quantized with 'hqq', expected awq, compressed-tensors"),
    "awq gemv": ({"quant_method": "awq", "version": "gemv"}, "version: got 'gemv'"),
    "activations": (
        {**PACKED, "format": "float-quantized"},
        "format: got 'float-quantized', expected 'pack-quantized'",
    ),
    "no groups": ({"quant_method": "compressed-tensors"}, "config_groups: got None"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_variants_that_are_refused_by_name(case: str, make: Make) -> None:
    folder, _ = gptq_folder(make, 32)
    changes, message = REFUSED[case]
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"].update(changes)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        open_checkpoint(folder)


def test_every_piece_that_does_not_fit_is_named(make: Make) -> None:
    folder, _ = gptq_folder(make, 32)
    tensors = load_file(folder / "model.safetensors")
    module = "model.layers.0.self_attn.{}_proj.{}"
    del tensors[module.format("q", "scales")]
    tensors[module.format("k", "qzeros")] = torch.zeros(3, 8, dtype=torch.int32)
    tensors[module.format("v", "g_idx")] = torch.zeros(128)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder)
    lines = str(error.value)
    assert "missing: 'model.layers.0.self_attn.q_proj.scales', expected [4, 128]" in lines
    assert "shape: 'model.layers.0.self_attn.k_proj.qzeros': got [3, 8], expected [4, 8]" in lines
    assert "dtype: 'model.layers.0.self_attn.v_proj.g_idx': got F32, expected one of I32" in lines


def test_group_indices_out_of_range(make: Make) -> None:
    folder, _ = gptq_folder(make, 32)
    tensors = load_file(folder / "model.safetensors")
    tensors[DOWN.replace("weight", "g_idx")][3] = 99
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="got groups 0 to 99, expected 0 to 7"):
        open_checkpoint(folder)


def test_a_matrix_that_is_stored_twice(make: Make) -> None:
    folder, _ = gptq_folder(make, 32)
    tensors = load_file(folder / "model.safetensors")
    tensors[DOWN] = torch.zeros(128, 256)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"stored twice: '{DOWN}', as it is and in"):
        open_checkpoint(folder)
