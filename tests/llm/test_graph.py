"""The graph of each family as torch.export sees it: the operators that lowering knows, and no
other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fixtures_checkpoints import FAMILY_SIZES
from torch import nn

from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.decoder import DecoderConfig, ropes_of
from edge_llm.llm.models.build import build_model, load_model, tied_parameters
from edge_llm.llm.rope_tables import table_names

CONTEXT = 32


def trace(model: nn.Module, device: str) -> torch.export.ExportedProgram:
    tokens, rows = torch.export.Dim("T", max=CONTEXT), torch.export.Dim("R", max=CONTEXT)
    args = tuple(torch.zeros(size, dtype=torch.int64, device=device) for size in (7, 7, 7, 3))
    shapes = ({0: tokens}, {0: tokens}, {0: tokens}, {0: rows})
    return torch.export.export(model, args, dynamic_shapes=shapes, strict=False)


def operators(config: DecoderConfig) -> dict[str, int]:
    layers = config.num_hidden_layers
    counts = {
        "aten.embedding.default": 1,
        "aten.index_select.default": 1,
        "aten.rms_norm.default": 2 * layers + 1,
        "aten.linear.default": 7 * layers + 1,
        "aten.view.default": 4 * layers,
        "aten.add.Tensor": 2 * layers,
        "aten.silu.default": layers,
        "aten.mul.Tensor": layers,
        "edge.rope.default": 2
        * sum(config.attention(layer).rope is not None for layer in range(layers)),
        "edge.attention.default": layers,
    }
    if config.model_type == "qwen3":
        counts["aten.rms_norm.default"] += 2 * layers
    if config.model_type == "phi3":  # two products where others have five, and their parts
        counts["aten.linear.default"] -= 3 * layers
        counts["aten.split_with_sizes.default"] = 2 * layers
        counts["<built-in function getitem>"] = 5 * layers
    if config.model_type in ("gemma2", "gemma3_text"):
        counts["aten.gelu.default"] = counts.pop("aten.silu.default")
        counts["aten.rms_norm.default"] += 2 * layers
        counts["aten.mul.Tensor"] += 1  # the scale of embeddings
    if config.model_type == "granite":
        counts["aten.mul.Tensor"] += 2 * layers + 2  # of embeddings, of each part, of the logits
    if config.model_type == "exaone4":
        counts["aten.rms_norm.default"] += 2 * layers
    if config.model_type == "olmo3":
        counts["aten.rms_norm.default"] += 2 * layers
        counts["aten.flatten.using_ints"] = 2 * layers
        counts["aten.view.default"] += 2 * layers
    if config.model_type == "gemma2":
        counts["edge.softcap.default"] = 1
    if config.model_type == "gemma3_text":
        counts["aten.rms_norm.default"] += 2 * layers
    return counts


# Their layers are of several kinds, or have experts: tests/export/test_blueprints.py looks at
# their plans.
MIXED = (
    "gemma4_text",
    "gemma4_unified_text",
    "gpt_oss",
    "granitemoehybrid",
    "lfm2",
    "lfm2_moe",
    "olmoe",
    "phimoe",
    "qwen2_moe",
    "qwen3_moe",
    "qwen3_5_text",
    "qwen3_5_moe_text",
)


@pytest.mark.parametrize("family", [name for name in FAMILY_SIZES if name not in MIXED])
def test_graph_on_meta(family: str, tiny_checkpoint: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(family, tie_word_embeddings=True))
    model = build_model(checkpoint.config, context=CONTEXT, kv_dtype=torch.float16)
    program = trace(model, "meta")
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    assert Counter(str(node.target) for node in calls) == operators(checkpoint.config)
    assert all(node.meta["stack_trace"] for node in calls)
    assert len(program.range_constraints) == 2  # T and R, and nothing else, are dynamic
    (output,) = program.graph_signature.user_outputs
    by_name = {node.name: node for node in calls}
    assert by_name[output].meta["val"].shape[1] == checkpoint.config.vocab_size

    # Tied tables stay two parameters in the graph; the module's declaration joins them.
    names = set(program.graph_signature.inputs_to_parameters.values())
    tied = tied_parameters(model)
    assert tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert names == set(checkpoint.shapes) | set(tied)
    buffers = set(program.graph_signature.inputs_to_buffers.values())
    states = {
        f"model.layers.{layer}.self_attn.attend.{name}"
        for layer in range(checkpoint.config.num_hidden_layers)
        for name in ("k_cache", "v_cache")
    }
    ropes = range(len(ropes_of(checkpoint.config)))
    assert buffers == states | {name for index in ropes for name in table_names(index)}
    assert program.graph_signature.buffers_to_mutate == {}  # mutated in place, not returned


def test_traced_graph_computes_what_eager_does(tiny_checkpoint: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint("qwen3"))

    def model() -> nn.Module:
        return load_model(
            checkpoint.config, checkpoint.tensor, context=CONTEXT, kv_dtype=torch.float16
        )

    traced = trace(model(), "cpu").module()
    eager = model()
    for low, high in ((0, 12), (12, 13), (13, 20)):
        tokens = torch.arange(low, high)
        args = (tokens, tokens, torch.zeros_like(tokens), torch.arange(high - low))
        assert torch.equal(traced(*args), eager(*args))
