"""MXFP4 in the layout of gpt-oss checkpoints, against what transformers makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from edge_llm.errors import CheckpointError
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.prequantized.mxfp4 import mxfp4_integers
from edge_llm.program import pack


def random_tensors(*rows: int, groups: int) -> tuple[Any, Any]:
    """Blocks of any bytes, and scales around 1."""
    rng = np.random.default_rng(len(rows))
    blocks = rng.integers(0, 256, (*rows, groups, 16), np.uint8)
    return blocks, rng.integers(110, 140, (*rows, groups), np.uint8)


def test_the_weights_are_those_of_transformers() -> None:
    blocks, scales = random_tensors(3, 40, groups=6)
    made = mxfp4_integers("down_proj", blocks, scales)
    expected = convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32
    )
    # transformers turns each expert around, for x @ weight.
    rows = expected.transpose(1, 2).reshape(3 * 40, 192).numpy()
    assert made.format.name == "e2m1g32"
    assert np.array_equal(made.dequantize(), rows)
    packed = pack.pack_integers(made)
    assert np.array_equal(pack.dequantize(packed, made.format, 3 * 40, 192), rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda blocks, scales: (blocks, scales[:, :5]), "as many scales as blocks"),
        (lambda blocks, scales: (blocks[..., :8], scales), "as many scales as blocks"),
        (lambda blocks, scales: (blocks.view(np.int8), scales), "got blocks int8"),
        (lambda blocks, scales: (blocks, scales * 0 + np.uint8(255)), "exponents up to 255"),
    ],
)
def test_tensors_that_do_not_fit(change: Any, said: str) -> None:
    blocks, scales = change(*random_tensors(40, groups=6))
    with pytest.raises(CheckpointError, match=f"down_proj: .*{said}"):
        mxfp4_integers("down_proj", blocks, scales)


EXPERTS = (".gate_up_proj", ".down_proj")


@pytest.fixture
def folders(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """A gpt-oss checkpoint whose experts are MXFP4, and the same as floats."""
    source = tiny_checkpoint("gpt_oss")
    mxfp4, floats = tmp_path / "mxfp4", tmp_path / "floats"
    stored: dict[str, Any] = {}
    dense: dict[str, Any] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith(EXPERTS):
            stored[name] = dense[name] = tensor
            continue
        experts, k, n = tensor.shape
        blocks, scales = map(torch.from_numpy, random_tensors(experts, n, groups=k // 32))
        scales = scales // 8 + 108  # near the weights that they replace
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        dense[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    for folder, tensors in ((mxfp4, stored), (floats, dense)):
        shutil.copytree(source, folder)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((mxfp4 / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"],
    }
    (mxfp4 / "config.json").write_text(json.dumps(config))
    return mxfp4, floats


def test_a_checkpoint_is_that_of_its_floats(folders: tuple[Path, Path]) -> None:
    made, floats = map(open_checkpoint, folders)
    assert made.shapes == floats.shapes
    for name in floats.shapes:
        assert np.array_equal(made.tensor(name), floats.tensor(name)), name
    held = {name for name in floats.shapes if ".experts." in name and name.endswith(".weight")}
    assert made.integer_formats.keys() == held
    for name in held:
        assert np.array_equal(made.integers(name).dequantize(), floats.tensor(name))


def test_a_program_keeps_its_experts(folders: tuple[Path, Path], tmp_path: Path) -> None:
    made = make_program(Recipe(model=str(folders[0]), gate=None), output=tmp_path / "x.edge")
    assert made.verification["same_numbers"]["kl"] < 1e-3
    for row in made.report["weights"]:
        if row["name"].endswith(("gate_proj", "up_proj", "down_proj")):
            assert (row["format"], row["outcome"]) == ("e2m1g32", "unchanged")
            assert row["source"] == "mxfp4, e2m1g32"


def test_stacks_that_do_not_fit(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    save_file(tensors | {f"{name}_scales": tensors[f"{name}_scales"][:, 2:].clone()}, path)
    with pytest.raises(CheckpointError, match=f"shape: '{name}_scales': got"):
        open_checkpoint(folders[0])
    save_file(tensors | {f"{name}_blocks": tensors[f"{name}_blocks"][0].clone()}, path)
    with pytest.raises(
        CheckpointError, match=f"shape: '{name}_blocks': .* expected .experts, rows"
    ):
        open_checkpoint(folders[0])
