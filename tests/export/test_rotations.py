"""Rotations that are folded into matrices: where they can be, and that the function stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures_checkpoints import FAMILY_SIZES
from folded import logits, planned_model
from parity import check_fp32_program
from peft_adapters import write_adapter

import edge_llm
from edge_llm.api.embeddings import EmbedCall, embed_job
from edge_llm.errors import ConfigError, ProgramError
from edge_llm.export.lowering.residual import find_residual
from edge_llm.export.lowering.rotations import Turn
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.recipe import ROTATIONS, Recipe
from edge_llm.export.weights.calibration import measuring
from edge_llm.export.weights.rotation import rotated_columns, rotated_rows
from edge_llm.llm.checkpoints.source import TABLE
from edge_llm.program.file import Program
from edge_llm.program.hadamard import least_order, paley_matrix
from edge_llm.tokenizers.tokenizer import tokenizer_of

Tiny = Callable[..., Path]

# Whose attention reads keys as values, or norms them, or gates what it gives.
NO_VALUES = {"gemma4_text", "gemma4_unified_text", "qwen3_5_text", "qwen3_5_moe_text"}
GEMMA4 = {"gemma4_text", "gemma4_unified_text"}
# With norms between what layers write and the stream, and with norms that take the mean away.
NO_STREAM = {
    **dict.fromkeys(
        ("exaone4", "gemma2", "gemma3_text", "olmo3", *GEMMA4),
        r"the norm model\.layers\.0\.post_attention_layernorm\.weight, whose output is no matrix'",
    ),
    "phimoe": r"layer_norm \(model\.layers\.0\.input_layernorm\.weight\)",
}


@pytest.mark.parametrize("order", [12, 20, 28, 36, 44, 60, 84, 180])
def test_paley_matrices_are_orthogonal(order: int) -> None:
    made = paley_matrix(order)
    assert set(np.unique(made)) == {-1.0, 1.0}
    assert np.array_equal(made @ made.T, order * np.eye(order))


def test_the_orders_that_there_are() -> None:
    sizes = (1, 2, 64, 24, 80, 112, 576, 896, 960, 1504)
    assert [least_order(size) for size in sizes] == [1, 1, 1, 12, 20, 28, 36, 28, 60, 752]
    assert [least_order(size) for size in (3, 6, 92, 184)] == [None] * 4


@pytest.mark.parametrize("size", [1, 2, 16, 24, 64, 576, 896])
def test_rotations_are_orthogonal_and_of_even_size(size: int) -> None:
    unit = np.eye(size, dtype=np.float32)
    made = rotated_columns(unit, size)
    np.testing.assert_allclose(made @ made.T, unit, atol=5e-6)
    np.testing.assert_allclose(np.abs(made), size**-0.5, rtol=1e-6)
    assert np.array_equal(rotated_rows(unit, 0, size, size), made.T)


def test_runs_are_rotated_each_for_itself() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(70, 48)).astype(np.float32)
    made = rotated_columns(np.eye(16, dtype=np.float32), 16)
    columns = (values.reshape(70, 3, 16) @ made).reshape(70, 48)
    np.testing.assert_allclose(rotated_columns(values, 16), columns, atol=1e-5)
    rows = values.copy()
    rows[30:62] = (made.T @ values[30:62].reshape(2, 16, 48)).reshape(32, 48)
    np.testing.assert_allclose(rotated_rows(values, 30, 62, 16), rows, atol=1e-5)
    np.testing.assert_allclose(rotated_rows(values[:, 0].copy(), 30, 62, 16), rows[:, 0], atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILY_SIZES.keys() - NO_VALUES))
def test_rotated_values_leave_the_logits(family: str, tiny_checkpoint: Tiny) -> None:
    config, planned, rotated = planned_model(tiny_checkpoint(family), rotate="values")
    assert planned.rotations.turns
    expected = logits(config, replace(rotated, turns={}))
    got = logits(config, rotated)
    assert not np.array_equal(got, expected)
    assert np.abs(got - expected).max() < 5e-5 * np.abs(expected).max()


@pytest.mark.parametrize("family", sorted(FAMILY_SIZES.keys() - NO_STREAM.keys()))
def test_a_rotated_stream_leaves_the_logits(family: str, tiny_checkpoint: Tiny) -> None:
    config, planned, rotated = planned_model(tiny_checkpoint(family), rotate="all")
    assert planned.lowered.plan.embed is None
    expected = logits(config, replace(rotated, turns={}))
    got = logits(config, rotated)
    assert not np.array_equal(got, expected)
    assert np.abs(got - expected).max() < 5e-5 * np.abs(expected).max()


@pytest.mark.parametrize("family", sorted(NO_STREAM))
def test_what_is_in_the_way_of_the_stream_is_named(family: str, tiny_checkpoint: Tiny) -> None:
    with pytest.raises(ConfigError, match=NO_STREAM[family]):
        planned_model(tiny_checkpoint(family), rotate="all")


def test_widths_without_a_matrix_are_refused(tiny_checkpoint: Tiny) -> None:
    with pytest.raises(ConfigError, match="no Hadamard matrix of 184 columns"):
        planned_model(
            tiny_checkpoint("llama", hidden_size=184, head_dim=16), rotate="all", scheme="fp32"
        )


def test_what_gives_vectors_keeps_its_hidden_states(tiny_checkpoint: Tiny) -> None:
    plan = planned_model(tiny_checkpoint("llama"))[1].lowered.plan
    assert plan.embed is not None
    obstacle = find_residual(plan).obstacle
    assert obstacle == "the method `embed`, which goes on from hidden states"


@pytest.mark.parametrize("family", sorted(NO_VALUES))
def test_values_that_cannot_be_rotated_are_refused(family: str, tiny_checkpoint: Tiny) -> None:
    with pytest.raises(ConfigError, match="rotate is values, but none of the model's"):
        planned_model(tiny_checkpoint(family), rotate="values")


def test_the_places_of_values(tiny_checkpoint: Tiny) -> None:
    _, planned, _ = planned_model(tiny_checkpoint("phi3"), rotate="values")
    layer = "model.layers.1.self_attn."
    turns = {
        name.removeprefix(layer): turn
        for name, turn in planned.rotations.turns.items()
        if name.startswith(layer)
    }
    # 4 heads of queries and 2 of keys come before the values, of 16 rows each
    assert turns == {
        "qkv_proj.weight": Turn(rows=(96, 128, 16)),
        "o_proj.weight": Turn(columns=16),
    }
    assert planned.notes[-1] == "values rotated in 2 of 2 attentions"


def test_the_places_of_the_stream(tiny_checkpoint: Tiny) -> None:
    source = tiny_checkpoint("qwen2", tie_word_embeddings=True)
    _, planned, _ = planned_model(source, rotate="all")
    turns, layer = planned.rotations.turns, "model.layers.1."
    norm = f"{layer}input_layernorm.weight"
    assert turns[norm] == Turn(ones=True)
    assert turns[f"{layer}self_attn.q_proj.weight"] == Turn(columns=64, norm=norm)
    assert f"{layer}self_attn.q_proj.bias" not in turns
    value = Turn(rows=(0, 32, 16), columns=64, norm=norm)
    assert turns[f"{layer}self_attn.v_proj.weight"] == value
    assert turns[f"{layer}self_attn.v_proj.bias"] == Turn(rows=(0, 32, 16))
    assert turns[f"{layer}self_attn.o_proj.weight"] == Turn(rows=(0, 64, 64), columns=16)
    assert turns[f"{layer}mlp.down_proj.weight"] == Turn(rows=(0, 64, 64))
    assert turns["model.embed_tokens.weight"] == Turn(columns=64)
    assert turns["lm_head.weight"] == Turn(columns=64, norm="model.norm.weight")
    plain = planned_model(source)[1]
    assert (plain.tied_away, planned.tied_away) == ({"lm_head.weight": TABLE}, {})
    assert planned.parameters == plain.parameters
    assert planned.notes[-1] == "0.0 MB more: embedding and head, rotated, are no longer one"
    assert planned.parted_bytes > 0


@pytest.mark.parametrize("rotate", ROTATIONS)
@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
        ("phi3", {}),
        ("qwen2", {}),
        ("qwen3", {"tie_word_embeddings": True}),
    ],
)
def test_rotated_programs_compute_the_same(
    family: str, config: dict[str, object], rotate: str, tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    source = tiny_checkpoint(family, **config)
    check_fp32_program(source, tmp_path / "x.edge", settings=[f"rotate={rotate}"])


@pytest.mark.parametrize("rotate", ROTATIONS)
@pytest.mark.parametrize("calibration", [None, "builtin"])
def test_rotated_programs_are_what_verify_compares(
    calibration: str | None, rotate: str, tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    source = tiny_checkpoint("llama", max_position_embeddings=1024, tie_word_embeddings=True)
    recipe = Recipe(model=str(source), rotate=rotate, calibration=calibration, context=1024)
    made = make_program(recipe, output=tmp_path / "x.edge")
    assert made.verification["same_numbers"]["top1_near"] > 0.8
    plain = make_program(replace(recipe, rotate=None), output=tmp_path / "plain.edge")
    assert made.path.read_bytes() != plain.path.read_bytes()
    # what was measured for the calibration are the rotated values: else this would be far more
    lost, usual = (each.verification["unquantized"]["kl"] for each in (made, plain))
    assert lost < 1.5 * usual
    with Program.open(made.path) as program:
        assert "values rotated in 2 of 2 attentions" in program.documents.report["notes"]
        assert program.documents.recipe["rotate"] == rotate
        if rotate == "all":
            with pytest.raises(ProgramError, match="without the method `embed`") as raised:
                embed_job(program, tokenizer_of(program), 64, EmbedCall(texts="x"))
            assert "without rotate=all" in (raised.value.hint or "")


def test_integers_that_are_taken_over_are_not_rotated(
    tiny_checkpoint: Tiny, make_gguf: Callable[..., Path]
) -> None:
    source = make_gguf(tiny_checkpoint("llama"), "Q8_0")
    with pytest.raises(ConfigError, match=r"_proj\.weight keeps the checkpoint's own"):
        planned_model(source, rotate="values")
    experts = make_gguf(tiny_checkpoint("qwen3_moe", mlp_only_layers=[]), "Q8_0", name="experts")
    with pytest.raises(ConfigError, match=r"mlp\.experts\.down_proj keeps the checkpoint's own"):
        planned_model(experts, rotate="all", overrides={"*self_attn*": "i4g32"})
    # what reads the text is rotated where the program is, whatever it could take over
    recipe = Recipe(model=str(source), rotate="values", calibration="builtin", linear="i4g32")
    assert measuring(recipe).requantize
    _, read, _ = planned_model(source, scheme="8da8w", rotate="values", requantize=True)
    _, planned, own = planned_model(source, linear="i4g32", rotate="values")
    assert read.rotations.turns == planned.rotations.turns
    assert not planned.rotations.turns.keys() & own.stored.keys()


def test_adapters_are_not_put_beside_a_rotated_program(
    tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    recipe = Recipe(model=str(tiny_checkpoint("llama")), rotate="values", verify=False)
    program = edge_llm.export(recipe, output=tmp_path / "x.edge")
    adapter = write_adapter(tmp_path / "adapter").folder
    with pytest.raises(ConfigError, match="exported with rotate=values") as raised:
        edge_llm.load(program, adapters={"mine": adapter})
    assert "merge the adapter" in (raised.value.hint or "")


@pytest.mark.parametrize("rotate", ROTATIONS)
def test_an_adapter_is_merged_before(rotate: str, tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    source = tiny_checkpoint("llama")
    written = write_adapter(tmp_path / "adapter")
    recipe = Recipe(
        model=str(source),
        scheme="fp32",
        rotate=rotate,
        adapters=[{"path": str(written.folder)}],
        verify=False,
    )
    ids = [*range(5, 40)]
    with edge_llm.load(edge_llm.export(recipe, output=tmp_path / "x.edge")) as llm:
        got = llm.logits(ids)
    expected = written.logits(ids)
    assert np.abs(got - expected).max() < 1e-4 * expected.std()
