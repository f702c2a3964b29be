"""Folders of 8-bit floats: their numbers to the bit, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stored_tensors import tensor_of

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint

Tiny = Callable[..., Path]
Make = Callable[..., Path]
Block = tuple[int, int] | None
UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def make(tiny_checkpoint: Tiny, tmp_path: Path) -> Make:
    """``make(block, flat=False, **settings)``: a folder of 8-bit floats, with a scale of each block
    or of each matrix (``flat``: with one dimension); its weights as floats are in "dense"."""

    def run(block: Block, *, flat: bool = False, **settings: Any) -> Path:
        source, folder = tiny_checkpoint("ministral3"), tmp_path / "fp8"
        shutil.copytree(source, folder)
        shutil.copytree(source, folder / "dense")
        tensors = load_file(source / "model.safetensors")
        stored, dense = dict(tensors), dict(tensors)
        for name, weight in tensors.items():
            if name.endswith("_proj.weight"):
                module = name.removesuffix(".weight")
                codes, scales, values = rounded(weight, block)
                stored[name] = codes
                stored[f"{module}.weight_scale_inv"] = scales.view(1) if flat else scales
                stored[f"{module}.activation_scale"] = torch.tensor(0.5)
                dense[name] = values
        save_file(stored, folder / "model.safetensors")
        save_file(dense, folder / "dense" / "model.safetensors")
        said = {"quant_method": "fp8", "weight_block_size": block, "activation_scheme": "static"}
        edit(folder, **said, modules_to_not_convert=["lm_head"], **settings)
        return folder

    return run


def rounded(weight: torch.Tensor, block: Block) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return codes, scales and the float32 numbers that these make."""
    n, k = weight.shape
    rows, columns = block or (n, k)
    each = torch.empty(-(-n // rows), -(-k // columns))
    for i in range(each.shape[0]):
        for j in range(each.shape[1]):
            part = weight[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            each[i, j] = part.abs().max() / 448
    scales = each if block else each.view(()).to(torch.bfloat16)
    spread = (scales.float() if block else scales.float().view(1, 1)).repeat_interleave(rows, 0)
    spread = spread[:n].repeat_interleave(columns, 1)[:, :k]
    codes = (weight / spread).to(torch.float8_e4m3fn)
    return codes, scales, codes.float() * spread


def edit(folder: Path, **settings: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"quantization_config": settings}))


@pytest.mark.parametrize(
    ("block", "flat"), [(None, False), (None, True), ((32, 32), False), ((40, 40), False)]
)
def test_numbers(block: Block, flat: bool, make: Make) -> None:
    folder = make(block, flat=flat)
    checkpoint, dense = open_checkpoint(folder), open_checkpoint(folder / "dense")
    assert checkpoint.shapes == dense.shapes
    assert not checkpoint.integer_formats
    for name in dense.shapes:
        assert torch.equal(tensor_of(checkpoint, name), tensor_of(dense, name)), name
    assert checkpoint.notes == (
        "checkpoint quantized with fp8: 14 matrices are read as floats (8-bit floats)",
    )
    assert checkpoint.stored_as[f"{UP}.weight"] == "fp8, 8-bit floats"
    assert checkpoint.stored_as["lm_head.weight"] == "F32"


def test_an_export_is_that_of_the_floats(make: Make, tmp_path: Path) -> None:
    folder = make((32, 32))
    ours, floats = (
        export(
            load_recipe("8da4w", ["gate=off", "verify=false"], model=str(source)),
            output=tmp_path / f"{index}.edge",
        )
        for index, source in enumerate((folder, folder / "dense"))
    )
    from edge_llm.program.file import Program

    with Program.open(ours) as one, Program.open(floats) as other:
        assert one.plan == other.plan
        for weight in one.plan.weights:
            assert bytes(one.weight_data(weight)) == bytes(other.weight_data(weight))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fmt": "e5m2"}, "fmt: got 'e5m2', expected 'e4m3'"),
        ({"weight_block_size": [128]}, r"weight_block_size: got \[128\], expected null or two"),
        ({"weight_block_size": [0, 1]}, "weight_block_size: got"),
    ],
)
def test_variants_that_are_refused_by_name(
    change: dict[str, Any], message: str, make: Make
) -> None:
    folder = make(None)
    edit(folder, **{"quant_method": "fp8", "weight_block_size": None, **change})
    with pytest.raises(ConfigError, match=message):
        open_checkpoint(folder)


def test_pieces_that_do_not_fit(make: Make) -> None:
    folder = make((32, 32))
    stored = load_file(folder / "model.safetensors")
    stored[f"{UP}.weight_scale_inv"] = torch.ones(5, 5)
    del stored["model.layers.0.mlp.gate_proj.weight"]
    stored["model.layers.0.mlp.down_proj.weight"] = torch.ones(64, 96)
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder)
    for line in (
        f"shape: '{UP}.weight_scale_inv': got [5, 5], expected [3, 2]",
        "missing: model.layers.0.mlp.gate_proj.weight, of which there is",
        "dtype: 'model.layers.0.mlp.down_proj.weight': got F32, expected one of F8_E4M3",
    ):
        assert line in str(error.value)
