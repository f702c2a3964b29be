"""LoRA adapters that the peft package wrote, against its own merged weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_checkpoints import random_model
from safetensors.torch import load_file, save_file
from stored_tensors import tensor_of

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.huggingface.adapters import with_adapters
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.integers import Integers

peft = pytest.importorskip("peft", reason="needs the peft package")

Tiny = Callable[..., Path]
QUERY = "model.layers.0.self_attn.q_proj.weight"
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapter(
    folder: Path,
    family: str = "llama",
    *,
    seed: int = 0,
    base_weights: bool = False,
    **config: Any,
) -> dict[str, torch.Tensor]:
    """A random adapter of the tiny model of ``family`` (fixtures_checkpoints) as peft saves it;
    returns the parameters with the adapter merged by peft."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": list(ALL)} | config
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = peft.get_peft_model(random_model(family), peft.LoraConfig(**settings))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        model.peft_config["default"].base_model_name_or_path = "base/model"
        model.save_pretrained(folder, save_embedding_layers=base_weights)
        merged = model.merge_and_unload()
    return dict(merged.named_parameters())


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {"target_modules": ["q_proj", "down_proj"]}),
    "qwen3": ("qwen3", {}),
    "phi3": ("phi3", {"target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]}),
    "rslora": ("llama", {"use_rslora": True, "r": 9}),
    "patterns": (
        "llama",
        {
            "rank_pattern": {"layers.1.self_attn.q_proj": 2, "^model.layers.0.mlp.up_proj": 6},
            "alpha_pattern": {"up_proj": 3, "proj": 99},
        },
    ),
    "table and head": ("llama", {"target_modules": ["embed_tokens", "lm_head", "v_proj"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_merged_weights_are_those_of_peft(case: str, tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    family, config = CASES[case]
    expected = write_adapter(tmp_path / "lora", family, **config)
    plain = open_checkpoint(tiny_checkpoint(family))
    checkpoint = with_adapters(plain, [(tmp_path / "lora", 1.0)])
    changed = 0
    for name in checkpoint.shapes:
        got = tensor_of(checkpoint, name)
        assert torch.allclose(got, expected[name].detach(), rtol=1e-5, atol=1e-6), name
        changed += not torch.equal(got, tensor_of(plain, name))
    targets = config.get("target_modules", ALL)
    inside = [target for target in targets if target not in ("embed_tokens", "lm_head")]
    assert changed == 2 * len(inside) + (len(targets) - len(inside))
    assert checkpoint.notes[-1] == (
        f"adapter lora merged with weight 1 into {changed} matrices, trained on 'base/model'"
    )
    assert [path.name for path in checkpoint.sources[-2:]] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


BASE = "base_model.model.model.embed_tokens.base_layer.weight"


def test_base_weights_that_peft_stores_beside(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    expected = write_adapter(
        tmp_path / "lora", base_weights=True, target_modules=["q_proj", "embed_tokens", "lm_head"]
    )
    path = tmp_path / "lora" / "adapter_model.safetensors"
    assert BASE in load_file(path)
    plain = open_checkpoint(tiny_checkpoint("llama"))
    merged = with_adapters(plain, [(tmp_path / "lora", 1.0)])
    for name in (QUERY, "model.embed_tokens.weight", "lm_head.weight"):
        got = tensor_of(merged, name)
        assert torch.allclose(got, expected[name].detach(), rtol=1e-5, atol=1e-6), name
    tensors = load_file(path)
    tensors[BASE][3, 5] += 1
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"differ from model\.embed_tokens\.weight of"):
        with_adapters(plain, [(tmp_path / "lora", 1.0)])


def test_several_with_weights(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "one", seed=1)
    two = write_adapter(tmp_path / "two", seed=2, r=8, target_modules=["q_proj"])
    plain = open_checkpoint(tiny_checkpoint("llama"))
    both = with_adapters(plain, [(tmp_path / "one", 0.5), (tmp_path / "two", -2.0)])
    weight = tensor_of(plain, QUERY)
    expected = weight + 0.5 * (one[QUERY] - weight) - 2.0 * (two[QUERY] - weight)
    assert torch.allclose(tensor_of(both, QUERY), expected.detach(), rtol=1e-5, atol=1e-6)


def test_merging_is_in_float32_and_leaves_the_file_alone(
    tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "lora")
    plain = open_checkpoint(tiny_checkpoint("llama", dtype="bfloat16"))
    before = tensor_of(plain, QUERY)
    merged = with_adapters(plain, [(tmp_path / "lora", 1.0)])
    assert tensor_of(merged, QUERY).dtype == torch.float32
    assert tensor_of(merged, "model.norm.weight").dtype == torch.bfloat16
    assert torch.equal(tensor_of(plain, QUERY), before)


def test_on_a_gguf_base(
    tiny_checkpoint: Tiny, make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    expected = write_adapter(tmp_path / "lora")
    plain = open_checkpoint(make_gguf(tiny_checkpoint("llama")))
    merged = with_adapters(plain, [(tmp_path / "lora", 1.0)])
    for name in (QUERY, "model.layers.1.mlp.down_proj.weight"):
        assert torch.allclose(
            tensor_of(merged, name), expected[name].detach(), rtol=1e-5, atol=1e-6
        )


def test_adapted_integers_no_longer_count(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    from dataclasses import replace

    def integers(name: str) -> Integers:
        raise AssertionError(name)

    write_adapter(tmp_path / "lora", target_modules=["q_proj"])
    plain = open_checkpoint(tiny_checkpoint("llama"))
    other = "model.layers.0.self_attn.v_proj.weight"
    form = WEIGHT_FORMATS["i4g32"]
    held = replace(plain, integer_formats={QUERY: form, other: form}, integers=integers)
    assert with_adapters(held, [(tmp_path / "lora", 1.0)]).integer_formats == {other: form}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"peft_type": "LOHA"}, "peft_type: got 'LOHA', expected 'LORA'"),
    "dora": ({"use_dora": True}, "use_dora: got True, a kind of LoRA not supported"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, r"modules_to_save: got \['lm_head'\]"),
    "bias": ({"bias": "all"}, "bias: got 'all', expected 'none'"),
    "transposed": ({"fan_in_fan_out": True}, "fan_in_fan_out: got True, expected False"),
    "base changed": ({"init_lora_weights": "pissa"}, "init_lora_weights: got 'pissa'"),
    "unknown key": ({"use_new_thing": 3}, "use_new_thing: got 3, a kind of LoRA not supported"),
    "rank": ({"r": 0}, "r: got 0, expected an integer from 1"),
    "alpha": ({"lora_alpha": None}, "lora_alpha: missing"),
    "pattern": (
        {"alpha_pattern": {"(a+)+$": 3}},
        r"alpha_pattern: got the pattern '\(a\+\)\+\$', expected a module's name",
    ),
    "pattern value": ({"rank_pattern": {"q_proj": -1}}, "rank_pattern: 'q_proj': got -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_kinds_that_are_refused_by_name(case: str, tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", target_modules=["q_proj"])
    changes, message = REFUSED[case]
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConfigError, match=message):
        with_adapters(open_checkpoint(tiny_checkpoint("llama")), [(tmp_path / "lora", 1.0)])


def test_what_fits_no_parameter_is_listed(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", target_modules=["q_proj", "k_proj"])
    path = tmp_path / "lora" / "adapter_model.safetensors"
    stem = "base_model.model.model.layers.{}.self_attn.{}_proj.{}"
    tensors = load_file(path)
    for half in ("lora_A.weight", "lora_B.weight"):
        tensors[stem.format(7, "q", half)] = tensors[stem.format(0, "q", half)].clone()
    tensors[stem.format(0, "k", "lora_A.weight")] = torch.zeros(3, 64)
    del tensors[stem.format(1, "k", "lora_B.weight")]
    tensors[stem.format(0, "q", "lora_magnitude_vector")] = torch.zeros(64)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="does not adapt this model") as error:
        with_adapters(open_checkpoint(tiny_checkpoint("llama")), [(tmp_path / "lora", 1.0)])
    lines = sorted(line.strip() for line in str(error.value).splitlines()[1:])
    assert lines == [
        f"'{stem.format(0, 'k', 'lora_A.weight')}': got [3, 64], expected [4, 64]",
        f"'{stem.format(1, 'k', 'lora_B.weight')}': got None, expected [32, 4]",
        f"left over: '{stem.format(0, 'q', 'lora_magnitude_vector')}'",
        "unknown: 'model.layers.7.self_attn.q_proj'",
    ]


def test_a_scale_beyond_float32(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", target_modules=["q_proj"], alpha_pattern={"q_proj": 1e300})
    checkpoint = open_checkpoint(tiny_checkpoint("llama"))
    with pytest.raises(CheckpointError, match=r"scale: model.*q_proj: got 2\.5e\+299"):
        with_adapters(checkpoint, [(tmp_path / "lora", 1.0)])


def test_a_tied_table_is_not_adapted(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", target_modules=["embed_tokens"])
    checkpoint = open_checkpoint(tiny_checkpoint("llama", tie_word_embeddings=True))
    with pytest.raises(CheckpointError, match=r"tied: model\.embed_tokens shares its values"):
        with_adapters(checkpoint, [(tmp_path / "lora", 1.0)])


def test_folders_without_an_adapter(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint("llama"))
    with pytest.raises(CheckpointError, match="is not a folder"):
        with_adapters(checkpoint, [(tmp_path / "nowhere", 1.0)])
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin, which is never unpickled"):
        with_adapters(checkpoint, [(tmp_path, 1.0)])
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        with_adapters(checkpoint, [(tmp_path, 1.0)])
