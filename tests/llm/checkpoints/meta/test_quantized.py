"""Meta's quantized checkpoints: what is read of them, and what is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_meta import QuantizedFactory
from stored_tensors import assert_same_model, tensor_of

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.families.quantized_llama import QuantizedLlamaConfig

LORA = {"rank": 4, "scale": 1.5}
UP = "layers.0.feed_forward.w3"
QUERY = "model.layers.0.self_attn.q_proj"


def test_matrices_and_their_order(make_quantized_meta: QuantizedFactory) -> None:
    written = make_quantized_meta(lora=LORA)
    made = open_checkpoint(written.folder)
    assert isinstance(made.config, QuantizedLlamaConfig)
    assert (made.config.adapter_rank, made.config.adapter_scale) == (4, 1.5)
    assert not made.config.hadamard
    assert len(made.integer_formats) == 16
    assert made.integer_formats["lm_head.weight"].name == "i8"
    assert set(made.inexact) == {"lm_head.weight", "model.embed_tokens.weight"}
    # Rows 0 and 1 of a head of 16 are a rotary pair in the file; they are 0 and 8 here.
    stored = written.tensors["layers.0.attention.wq.weight"].numpy()
    assert np.array_equal(made.integers(f"{QUERY}.weight").codes[[0, 8]], stored[[0, 1]])
    beside = written.tensors["layers.0.attention.wq.adaptor.B.weight"]
    assert torch.equal(tensor_of(made, f"{QUERY}.adaptor.B.weight")[[0, 8]], beside[[0, 1]])
    values = tensor_of(made, "model.layers.0.mlp.up_proj.weight")
    q, scales = (written.tensors[f"{UP}.{part}"] for part in ("weight", "scales"))
    assert torch.equal(values, q * scales.repeat_interleave(32, dim=1))
    assert made.stored_as["model.layers.0.mlp.up_proj.weight"] == "Meta QLoRA, i4g32"
    assert made.stored_as[f"{QUERY}.adaptor.B.weight"] == "bfloat16"


def test_what_else_files_may_hold(make_quantized_meta: QuantizedFactory) -> None:
    """Dimensions of 1, zero points that are all 0, tensors inside of "model"."""
    plain = open_checkpoint(make_quantized_meta(lora={"rank": 1, "scale": 2.0}).folder)

    def edit(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            if name.endswith(".scales"):
                zeros = torch.zeros(tensors[name].shape, dtype=torch.int32)
                tensors[name.replace(".scales", ".zeros")] = zeros
                tensors[name] = tensors[name][:, None]
            if "norm" in name:
                tensors[name] = tensors[name][None]
            if ".adaptor.A." in name:
                tensors[name] = tensors[name].squeeze(0)
        tensors["model"] = dict(tensors)
        for name in [name for name in tensors if name != "model"]:
            del tensors[name]

    written = make_quantized_meta(lora={"rank": 1}, edit=edit, name="other")  # 2.0 is the default
    assert_same_model(open_checkpoint(written.folder), plain)


def test_a_head_that_is_the_embedding(make_quantized_meta: QuantizedFactory) -> None:
    def edit(tensors: dict[str, Any]) -> None:
        for part in ("weight", "scales"):
            tensors[f"output.{part}"] = tensors[f"tok_embeddings.{part}"].clone()

    made = open_checkpoint(make_quantized_meta(edit=edit).folder)
    assert made.config.tie_word_embeddings
    assert "lm_head.weight" not in made.shapes

    def scaled(tensors: dict[str, Any]) -> None:
        edit(tensors)
        tensors["output.scales"][3] *= 2

    made = open_checkpoint(make_quantized_meta(edit=scaled, name="apart").folder)
    assert not made.config.tie_word_embeddings


def test_scales_beyond_float16_are_read_as_floats(make_quantized_meta: QuantizedFactory) -> None:
    def edit(tensors: dict[str, Any]) -> None:
        tensors[f"{UP}.scales"] *= 1e-6

    made = open_checkpoint(make_quantized_meta(edit=edit).folder)
    name = "model.layers.0.mlp.up_proj.weight"
    assert name not in made.integer_formats
    assert made.stored_as[name] == "Meta int4, int4, read as floats (scales beyond float16)"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "scheme": (
        {"quantization_args": {"scheme": "int4", "group_size": 32}},
        "quantization_args.scheme: got 'int4', expected 'int4_weight_int8_dynamic_activation'",
    ),
    "no scheme": ({"quantization_args": {"group_size": 32}}, "quantization_args.scheme: missing"),
    "no group": (
        {"quantization_args": {"scheme": "int4_weight_int8_dynamic_activation"}},
        "quantization_args.group_size: missing, expected an integer from 1",
    ),
    "more": (
        {
            "quantization_args": {
                "scheme": "int4_weight_int8_dynamic_activation",
                "group_size": 32,
                "bits": 3,
            }
        },
        "quantization_args.bits: got 3, a key not supported",
    ),
    "no object": ({"quantization_args": "int4"}, "quantization_args: got 'int4', expected an obj"),
    "adapters alone": (
        {"quantization_args": None, "lora_args": LORA},
        "lora_args: supported only beside quantization_args",
    ),
    "rank": ({"lora_args": {"rank": 0}}, "lora_args.rank: got 0, expected an integer from 1"),
    "scale": ({"lora_args": {"rank": 4, "scale": "2"}}, "lora_args.scale: got '2', expected a num"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_are_refused(case: str, make_quantized_meta: QuantizedFactory) -> None:
    params, message = REFUSED[case]
    written = make_quantized_meta(**params)
    with pytest.raises(ConfigError, match=re.escape(message)):
        open_checkpoint(written.folder)


def test_a_width_without_a_transform(make_quantized_meta: QuantizedFactory) -> None:
    written = make_quantized_meta(spinquant=True, sizes={"intermediate_size": 192})
    with pytest.raises(ConfigError, match=r"intermediate_size: got 192, expected 2\^k or 28"):
        open_checkpoint(written.folder)


def change(name: str, made: Any) -> Any:
    def edit(tensors: dict[str, Any]) -> None:
        if made is None:
            del tensors[name]
        else:
            tensors[name] = made(tensors.get(name))

    return edit


DAMAGED: dict[str, tuple[Any, str]] = {
    "no scales": (
        change(f"{UP}.scales", None),
        "missing: layers.0.feed_forward.w3.scales, expected [128, 2]",
    ),
    "scales of another group": (
        change(f"{UP}.scales", lambda scales: scales[:, :1].clone()),
        "shape: layers.0.feed_forward.w3.scales: got [128, 1], expected [128, 2]",
    ),
    "scales of integers": (
        change(f"{UP}.scales", lambda scales: scales.int()),
        "dtype: layers.0.feed_forward.w3.scales: got int32, expected floats",
    ),
    "scales that are not finite": (
        change(f"{UP}.scales", lambda scales: scales * torch.inf),
        "layers.0.feed_forward.w3.scales has values that are not finite",
    ),
    "scales whose products are not finite": (
        change(f"{UP}.scales", lambda scales: scales * 0 + 1e37),
        "layers.0.feed_forward.w3.scales has values that are not finite, or too large",
    ),
    "rows that are no heads": (
        change("layers.0.attention.wq.weight", lambda q: q[:3].clone()),
        "shape: layers.0.attention.wq.scales: got [64, 2], expected [3, 2]",
    ),
    "zero points": (
        change(f"{UP}.zeros", lambda _: torch.ones(128, 2)),
        "layers.0.feed_forward.w3.zeros: got zero points other than 0",
    ),
    "another rank": (
        change(f"{UP}.adaptor.A.weight", lambda a: a[:3]),
        "shape: model.layers.0.mlp.up_proj.adaptor.A.weight: got [3, 64], expected [4, 64]",
    ),
    "half an adaptor": (
        change(f"{UP}.adaptor.B.weight", None),
        "missing: model.layers.0.mlp.up_proj.adaptor.B.weight, expected [128, 4]",
    ),
    "a norm of integers": (
        change("norm.weight", lambda norm: norm.char()),
        "shape: norm.weight: got [64], expected a matrix",
    ),
    "an adaptor of integers": (
        change(f"{UP}.adaptor.A.weight", lambda a: a.int()),
        "dtype: layers.0.feed_forward.w3.adaptor.A.weight: got int32, expected floats",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_tensors_that_are_refused(case: str, make_quantized_meta: QuantizedFactory) -> None:
    edit, message = DAMAGED[case]
    written = make_quantized_meta(lora=LORA, edit=edit)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        open_checkpoint(written.folder)


def test_queries_of_other_heads(make_quantized_meta: QuantizedFactory) -> None:
    """Rows that no head size divides are told as a wrong shape, like any others."""

    def edit(tensors: dict[str, Any]) -> None:
        for part in ("weight", "scales"):
            name = f"layers.0.attention.wq.{part}"
            tensors[name] = tensors[name][:3].clone()

    with pytest.raises(CheckpointError, match=r"q_proj.weight: got \[3, 64\], expected \[64, 64\]"):
        open_checkpoint(make_quantized_meta(edit=edit).folder)


def test_codes_beyond_four_bits(make_quantized_meta: QuantizedFactory) -> None:
    written = make_quantized_meta(edit=change(f"{UP}.weight", lambda q: q * 2))
    made = open_checkpoint(written.folder)
    with pytest.raises(CheckpointError, match=r"w3.weight: got integers beyond \[-8, 7\]"):
        made.integers("model.layers.0.mlp.up_proj.weight")


def test_adaptors_that_params_do_not_name(make_quantized_meta: QuantizedFactory) -> None:
    written = make_quantized_meta(lora=LORA)
    params = written.params
    del params["lora_args"]
    (written.folder / "params.json").write_text(json.dumps(params))
    with pytest.raises(CheckpointError, match=r"left over: .*q_proj.adaptor.A.weight"):
        open_checkpoint(written.folder)


def test_several_shards(make_quantized_meta: QuantizedFactory) -> None:
    written = make_quantized_meta()
    data = (written.folder / "consolidated.00.pth").read_bytes()
    (written.folder / "consolidated.01.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="is quantized and has 2 shards, expected one"):
        open_checkpoint(written.folder)


def test_a_file_cut_short(make_quantized_meta: QuantizedFactory) -> None:
    written = make_quantized_meta()
    path = written.folder / "consolidated.00.pth"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"is not a zip archive as torch.save writes it"):
        open_checkpoint(written.folder)
