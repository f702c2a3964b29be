"""Layers of one decoder that differ: rope, window, head dim and scale are each layer's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from edge_llm.llm import registry
from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, ropes_of
from edge_llm.llm.families.family import Family
from edge_llm.llm.models import build as builders
from edge_llm.llm.models.build import build_model, load_model
from edge_llm.llm.models.layers import Attention, CacheShape, GatedMLP, prenorm_decoder
from edge_llm.llm.registry import constants, parameter_shapes
from edge_llm.llm.rope import LinearScaling, Rope

CONTEXT, DIM, VOCAB = 32, 32, 50
NEAR = AttentionShape(heads=4, kv_heads=2, head_dim=8, rope=Rope(1e4, 8), window=5)
FAR = AttentionShape(
    heads=2, kv_heads=1, head_dim=32, rope=Rope(1e6, 16, LinearScaling(8.0)), scale=0.1
)
BARE = AttentionShape(heads=2, kv_heads=2, head_dim=16, rope=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedConfig:
    """A decoder whose layers are given one by one."""

    model_type: ClassVar[str] = "mixed"

    layers: tuple[AttentionShape, ...]
    vocab_size: int = VOCAB
    hidden_size: int = DIM
    intermediate_size: int = 48
    max_position_embeddings: int = CONTEXT
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layers)

    def attention(self, layer: int) -> AttentionShape:
        return self.layers[layer]


def read(reader: ConfigReader) -> MixedConfig:
    raise NotImplementedError


def build(config: MixedConfig, cache: CacheShape) -> nn.Module:
    return prenorm_decoder(
        config,
        cache,
        attention=lambda layer: Attention(DIM, config.attention(layer), cache),
        mlp=lambda layer: GatedMLP(DIM, 48),
    )


@pytest.fixture(autouse=True)
def family(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = Family(config=MixedConfig, read=read)
    monkeypatch.setattr(registry, "FAMILIES", {"mixed": mixed})
    monkeypatch.setattr(builders, "BUILDERS", {"mixed": build})


def logits(*layers: AttentionShape) -> torch.Tensor:
    config = MixedConfig(layers=layers)
    shapes = parameter_shapes(config)
    values = {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(index)).numpy()
        for index, (name, shape) in enumerate(shapes.items())
    }
    model = load_model(config, values.__getitem__, context=CONTEXT, kv_dtype=torch.float32)
    tokens = torch.arange(CONTEXT)
    result: torch.Tensor = model(tokens, tokens, torch.zeros_like(tokens), tokens)
    return result


def test_each_different_rope_has_its_tables_once() -> None:
    config = MixedConfig(layers=(NEAR, BARE, FAR, NEAR))
    assert ropes_of(config) == (NEAR.rope, FAR.rope)
    tables = constants(config, CONTEXT)
    assert {name: table.shape for name, table in tables.items()} == {
        "cos": (32, 4),
        "sin": (32, 4),
        "cos_1": (32, 8),
        "sin_1": (32, 8),
    }
    model = build_model(config, context=CONTEXT, kv_dtype=torch.float16)
    buffers = {name: tuple(buffer.shape) for name, buffer in model.named_buffers()}
    caches = {name: shape for name, shape in buffers.items() if name not in tables}
    assert {name: buffers[name] for name in tables} == {n: t.shape for n, t in tables.items()}
    assert [shape[2:] for name, shape in caches.items() if "k_cache" in name] == [
        (2, 8),
        (2, 16),
        (1, 32),
        (2, 8),
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NEAR, AttentionShape(heads=4, kv_heads=2, head_dim=8, rope=NEAR.rope)),
        (NEAR, AttentionShape(heads=4, kv_heads=2, head_dim=8, rope=None, window=5)),
        (NEAR, AttentionShape(heads=4, kv_heads=2, head_dim=8, rope=Rope(9.0, 8), window=5)),
        (FAR, AttentionShape(heads=2, kv_heads=1, head_dim=32, rope=FAR.rope)),
    ],
    ids=["window", "rope", "theta", "scale"],
)
def test_each_fact_counts_in_its_own_layer(one: AttentionShape, other: AttentionShape) -> None:
    mixed = logits(BARE, one, one)
    assert torch.equal(mixed, logits(BARE, one, one))
    assert not torch.allclose(mixed, logits(BARE, one, other))
    assert not torch.allclose(logits(BARE, one, other), logits(BARE, other, one))


def test_a_scale_of_none_is_that_of_the_head() -> None:
    stated = AttentionShape(heads=2, kv_heads=2, head_dim=16, rope=None, scale=16**-0.5)
    assert torch.equal(logits(BARE, BARE), logits(stated, BARE))


def test_the_graph_keeps_the_layers_apart() -> None:
    model = build_model(
        MixedConfig(layers=(NEAR, FAR, BARE)), context=CONTEXT, kv_dtype=torch.float32
    )
    size = torch.export.Dim("T", max=CONTEXT)
    tokens = torch.zeros(7, dtype=torch.int64, device="meta")
    program = torch.export.export(
        model, (tokens,) * 4, dynamic_shapes=({0: size},) * 4, strict=False
    )
    attention = [node for node in program.graph.nodes if "edge.attention" in str(node.target)]
    assert [node.args[8:10] for node in attention] == [(8**-0.5, 5), (0.1, 0), (0.25, 0)]
    ropes = [node for node in program.graph.nodes if "edge.rope" in str(node.target)]
    names = program.graph_signature.inputs_to_buffers
    assert [names[node.args[2].name] for node in ropes] == ["cos", "cos", "cos_1", "cos_1"]
