"""The pack stage: bytes, rows of the report, and one tensor in memory at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.export.backends.registry import get_backend
from edge_llm.export.lowering.lowered import Lowered
from edge_llm.export.passes.merge import merge
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.report import WeightRow
from edge_llm.export.weights import prepared as weights_module
from edge_llm.export.weights.pack import pack
from edge_llm.export.weights.parameters import Parameters
from edge_llm.export.weights.quantize import quantize
from edge_llm.llm.checkpoints.arrays import Array
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.program.formats import RAW_F32, WEIGHT_FORMATS
from edge_llm.program.integers import Integers
from edge_llm.program.pack import dequantize

QK = "model.layers.0.self_attn.q_proj+k_proj.weight"


class Source:
    """Random parameters by name; counts how many are alive."""

    def __init__(self, lowered: Lowered) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.most_alive = 0
        self._alive: list[weakref.ref[Any]] = []
        for weight in lowered.plan.weights:
            parts = lowered.parts[weight.tensor]
            sizes = {"q_proj": 64, "k_proj": 32, "v_proj": 32, "gate_proj": 96, "up_proj": 96}
            for part in parts:
                rows = sizes[part.split(".")[-2]] if len(parts) > 1 else weight.shape[0]
                self.shapes[part] = (rows, *weight.shape[1:])

    def values(self, name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sum(name.encode()))
        return torch.randn(self.shapes[name], generator=generator) * 0.1

    def read(self, name: str) -> Array:
        array = self.values(name).numpy()
        self._alive = [ref for ref in self._alive if ref() is not None]
        self._alive.append(weakref.ref(array))
        if len(self.shapes[name]) == 2:
            self.most_alive = max(self.most_alive, len(self._alive))
        return array


def floats_only(read: Callable[[str], Array]) -> Parameters:
    """Parameters that are all floats."""

    def no_integers(name: str) -> Integers:
        raise AssertionError(name)

    return Parameters(read, "hqq", {}, no_integers)


def run(lowered: Lowered, source: Source) -> tuple[dict[str, NDArray[np.uint8]], list[WeightRow]]:
    written: dict[str, NDArray[np.uint8]] = {}
    progress: list[tuple[int, int]] = []
    rows = pack(
        lowered,
        floats_only(source.read),
        lambda name, data: written.update({name: data.copy()}),
        backend=get_backend("native"),
        progress=lambda done, total: progress.append((done, total)),
    )
    assert progress[-1][0] == progress[-1][1]
    assert progress == sorted(progress)
    return written, rows


@pytest.mark.parametrize("scheme", ["8da4w", "8da8w", "fp16", "bf16", "fp32"])
def test_bytes_are_the_quantized_weights(
    scheme: str,
    toy_config: Callable[..., DecoderConfig],
    lowered_toy: Callable[..., Lowered],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights_module, "CHUNK_ELEMENTS", 2048)  # 32 rows of 64
    config = toy_config("qwen2")
    lowered = merge(lowered_toy(config, Recipe(scheme=scheme)), row_multiple=16)
    source = Source(lowered)
    written, rows = run(lowered, source)
    assert set(written) == set(lowered.parts)
    for weight in lowered.plan.weights:
        parts = [source.values(part) for part in lowered.parts[weight.tensor]]
        if weight.format == RAW_F32:
            got = torch.from_numpy(written[weight.tensor].view(np.float32))
            assert torch.equal(got, torch.cat(parts).reshape(-1))
        else:
            stored = dequantize(written[weight.tensor], weight.format, *weight.shape)
            expected = [quantize(part.numpy(), weight.format).weight.dequantize() for part in parts]
            assert np.array_equal(stored, np.concatenate(expected))
    assert [row.name for row in rows] == [
        part for parts in lowered.parts.values() for part in parts
    ]
    assert sum(row.bytes for row in rows) == sum(data.size for data in written.values())


def test_one_matrix_is_alive_at_a_time(
    toy_config: Callable[..., DecoderConfig], lowered_toy: Callable[..., Lowered]
) -> None:
    lowered = merge(lowered_toy(toy_config(num_hidden_layers=2), Recipe()), row_multiple=16)
    source = Source(lowered)
    run(lowered, source)
    assert source.most_alive <= 2  # the last tensor is dropped once the next one is there


def test_sqnr(
    toy_config: Callable[..., DecoderConfig], lowered_toy: Callable[..., Lowered]
) -> None:
    lowered = merge(lowered_toy(toy_config(), Recipe()), row_multiple=16)
    source = Source(lowered)
    _, rows = run(lowered, source)
    row = next(row for row in rows if row.name.endswith("k_proj.weight"))
    assert row.tensor == QK
    values = source.values(row.name)
    rounded = quantize(values.numpy(), WEIGHT_FORMATS["i4g32"]).weight.dequantize()
    noise = values - torch.from_numpy(rounded)
    expected = 10 * torch.log10(values.square().sum() / noise.square().sum())
    assert row.sqnr_db == pytest.approx(float(expected), rel=1e-4)
    assert all(row.sqnr_db is None for row in rows if row.format == RAW_F32.name)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.self_attn.q_proj.weight"])
def test_a_damaged_parameter_is_named(
    name: str, toy_config: Callable[..., DecoderConfig], lowered_toy: Callable[..., Lowered]
) -> None:
    lowered = merge(lowered_toy(toy_config(), Recipe()), row_multiple=16)
    source = Source(lowered)

    def read(part: str) -> Array:
        array = source.values(part).numpy()
        if part == name:
            array.reshape(-1)[7] = np.nan
        return array

    with pytest.raises(ExportError, match=f"{name} holds values that are not finite"):
        pack(
            lowered,
            floats_only(read),
            lambda tensor, data: None,
            backend=get_backend("native"),
            progress=lambda done, total: None,
        )
