"""Factors that move between linears: where they can, and that the function stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_checkpoints import FAMILY_SIZES
from folded import logits, planned_model

from edge_llm.export.lowering.folds import Fold, Producer, rounded_folds
from edge_llm.export.meter import silent
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.verification.streamed import rounded_by_group
from edge_llm.export.verification.torchao import rounded_activations
from edge_llm.export.weights.balance import balance, even, moved
from edge_llm.export.weights.calibration import calibrated, evened, study
from edge_llm.export.weights.inputs import Inputs
from edge_llm.export.weights.kept import Kept
from edge_llm.export.weights.parameters import Parameters
from edge_llm.export.weights.quantize import quantize
from edge_llm.export.weights.reading import reading
from edge_llm.export.weights.scaling import Scaling
from edge_llm.program.file import Program
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.tokenizers.tokenizer import tokenizer_of

Tiny = Callable[..., Path]


@pytest.mark.parametrize("family", sorted(FAMILY_SIZES))
def test_moving_any_factors_leaves_the_logits(family: str, tiny_checkpoint: Tiny) -> None:
    config, planned, own = planned_model(tiny_checkpoint(family))
    random = np.random.default_rng(0)
    scalings: dict[str, Scaling] = {}
    assert planned.folds
    for fold in planned.folds:
        factors = np.exp2(random.uniform(-2.0, 2.0, fold.count)).astype(np.float32)
        for name, scaling in moved(fold, factors, own).items():
            scalings[name] = scalings[name].times(scaling) if name in scalings else scaling
    expected = logits(config, own)
    got = logits(config, replace(own, scalings=scalings))
    assert np.abs(got - expected).max() < 5e-5 * np.abs(expected).max()


def test_the_places_of_a_llama(tiny_checkpoint: Tiny) -> None:
    _, planned, _ = planned_model(tiny_checkpoint("llama"))
    layer = "model.layers.1."
    folds = {fold.consumers: fold for fold in planned.folds if layer in fold.consumers[0]}
    attention = tuple(f"{layer}self_attn.{name}_proj.weight" for name in "qkv")
    gated = tuple(f"{layer}mlp.{name}_proj.weight" for name in ("gate", "up"))
    assert set(folds) == {
        attention,
        (f"{layer}self_attn.o_proj.weight",),
        gated,
        (f"{layer}mlp.down_proj.weight",),
    }
    assert folds[attention].producers == (Producer(f"{layer}input_layernorm.weight", 0),)
    assert folds[attention].norm
    out = folds[f"{layer}self_attn.o_proj.weight",]
    assert out.producers == (Producer(attention[2], 0),)
    heads = np.arange(32).reshape(2, 1, 16)  # 2 heads of keys and values, 4 of queries
    assert np.array_equal(out.channels, np.broadcast_to(heads, (2, 2, 16)).reshape(-1))
    down = folds[f"{layer}mlp.down_proj.weight",]
    assert down.producers == (Producer(gated[1], 0),)


def test_a_part_of_a_fused_matrix_is_a_place(tiny_checkpoint: Tiny) -> None:
    _, planned, _ = planned_model(tiny_checkpoint("phi3"))
    names = {fold.consumers[0].split(".", 3)[3]: fold for fold in planned.folds}
    (producer,) = names["mlp.down_proj.weight"].producers
    assert (producer.parameter.rpartition("layers.1.")[2], producer.begin) == (
        "mlp.gate_up_proj.weight",
        96,
    )


def test_a_norm_that_a_router_reads_stays(tiny_checkpoint: Tiny) -> None:
    _, planned, _ = planned_model(tiny_checkpoint("qwen3_moe"))
    names = {producer.parameter for fold in planned.folds for producer in fold.producers}
    assert "model.layers.0.input_layernorm.weight" in names
    assert "model.layers.0.post_attention_layernorm.weight" not in names


def test_integers_that_are_taken_over_stay(
    tiny_checkpoint: Tiny, make_gguf: Callable[..., Path]
) -> None:
    source = make_gguf(tiny_checkpoint("llama"), "Q4_0")
    assert not planned_model(source)[1].folds
    assert len(planned_model(source, requantize=True)[1].folds) == 8


def test_evened_channels_lose_less(tiny_checkpoint: Tiny) -> None:
    """A checkpoint whose channels are of very different sizes is rounded as if they were not."""
    config, planned, own = planned_model(tiny_checkpoint("llama"))
    formats = planned.assignment.formats
    folds = rounded_folds(planned.folds, formats)
    assert len(folds) == 8
    random = np.random.default_rng(0)
    scalings: dict[str, Scaling] = {}
    for fold in folds:
        factors = np.exp2(random.uniform(-3.0, 3.0, fold.count)).astype(np.float32)
        for name, scaling in moved(fold, factors, own).items():
            scalings[name] = scalings[name].times(scaling) if name in scalings else scaling
    uneven = replace(own, scalings=scalings)
    expected = logits(config, own)

    def floats(parameters: Parameters, name: str) -> np.ndarray:
        values = parameters.matrix(name, WEIGHT_FORMATS["f32"]).floats(slice(None))
        assert values is not None
        return values

    def loss(parameters: Parameters) -> float:
        def read(name: str) -> np.ndarray:
            if name not in formats:
                return parameters.vector(name)
            return quantize(floats(parameters, name), formats[name]).weight.dequantize()

        rounded = logits(config, replace(own, read=read))
        return float(np.square(rounded - expected).mean())

    def read(name: str) -> np.ndarray:
        return floats(uneven, name) if name in formats else uneven.vector(name)

    given = replace(own, read=read)
    assert loss(replace(given, scalings=even(folds, given))) < 0.6 * loss(given)


def test_rules_of_others_round_a_checkpoints_own_numbers(tiny_checkpoint: Tiny) -> None:
    _, planned, own = planned_model(tiny_checkpoint("llama"))
    assert evened(planned, Recipe(scale_rule="signed"), own).scalings == {}


def test_channels_without_size_keep_their_numbers(tiny_checkpoint: Tiny) -> None:
    _, _, own = planned_model(tiny_checkpoint("llama"))
    norm, matrix = "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight"
    weights = own.vector(norm)
    weights[:3] = 0.0
    read = replace(own, read=lambda name: weights if name == norm else own.read(name))
    fold = Fold((matrix,), (Producer(norm, 0),), np.arange(64), norm=True)
    found = even([fold], read)
    columns = found[matrix].columns
    assert columns is not None
    assert np.isfinite(columns).all()
    assert (columns[:3] == 1.0).all()


@pytest.mark.parametrize("activations", ["token", "group"])
def test_searched_factors_lose_less_of_the_outputs(activations: str, tiny_checkpoint: Tiny) -> None:
    """Channels of the input are of very different sizes, as those of trained models are."""
    _, planned, own = planned_model(tiny_checkpoint("llama"), activations=activations)
    formats = planned.assignment.formats
    fold = next(fold for fold in planned.folds if "down_proj" in fold.consumers[0])
    (name,) = fold.consumers
    random = np.random.default_rng(0)
    sizes = np.exp2(random.uniform(-4.0, 4.0, fold.count))
    rows = (random.normal(size=(64, fold.count)) * sizes).astype(np.float32)
    squares = np.square(rows, dtype=np.float64).mean(axis=0)
    magnitude = np.abs(rows).mean(axis=0, dtype=np.float64)
    inputs = {name: Inputs(squares, magnitude, np.abs(rows).max(axis=0).astype(np.float64), rows)}
    ways = planned.assignment.activations
    assert set(ways.values()) == {activations}
    found = balance([fold], own, formats, inputs, ways, lambda done, total: None, Kept())
    assert set(found) == {name, *(producer.parameter for producer in fold.producers)}

    floats = own.matrix(name, WEIGHT_FORMATS["f32"]).floats(slice(None))
    assert floats is not None
    columns = found[name].columns
    assert columns is not None

    def loss(factors: np.ndarray) -> float:
        made = quantize(floats * factors, formats[name]).weight.dequantize()
        x = torch.from_numpy(rows / factors)
        x = rounded_activations(x) if activations == "token" else rounded_by_group(x)
        return float(np.square(x.numpy() @ made.T - rows @ floats.T).mean())

    assert loss(columns) < 0.7 * loss(np.ones_like(columns))


def test_columns_count_as_much_as_what_they_are_multiplied_with(
    tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    """A column that takes a factor is multiplied with what is so much smaller."""
    source = tiny_checkpoint("llama")
    _, planned, own = planned_model(source)
    reader = Recipe(model=str(source), context=64, scheme="fp32", verify=False)
    path = export(reader, output=tmp_path / "x.edge")
    parts = planned_model(source, scheme="fp32")[1].lowered.parts
    text = "The little boat went out to sea at dawn, and nobody saw it come home again. " * 12
    with Program.open(path) as program:
        ids = np.array(tokenizer_of(program).encode(text), np.int32)
    with reading(path, parts, ids, backend="native") as read:
        found = study(read, planned, own, silent, Kept())
        with calibrated(read, found, own, Kept()) as made:
            counted = made.columns
    assert counted.keys() == found.inputs.keys()
    scaled = {name: made.columns for name, made in found.scalings.items()}
    assert any(columns is not None for columns in scaled.values())
    for name, seen in found.inputs.items():
        columns = scaled.get(name)
        squares = seen.square if columns is None else seen.square / columns.astype(np.float64) ** 2
        expected = squares / squares.mean() + 1e-3
        np.testing.assert_allclose(counted[name], expected, rtol=1e-5)
