"""int4 weights of a checkpoint go into the program as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_quantized import Array, Quantized, choose, gptq, requantized_folder
from numpy.typing import NDArray
from safetensors.torch import save_file

import edge_llm
from edge_llm.errors import ExportError
from edge_llm.export.oracle import eager_model
from edge_llm.export.parameters import Parameters, parameters_of
from edge_llm.export.pipeline import export
from edge_llm.export.recipe import Recipe
from edge_llm.export.weights import QuantizedWeight
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import Integers
from edge_llm.program.file import Program
from edge_llm.program.pack import unpack_integers

Tiny = Callable[..., Path]
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def folder(tiny_checkpoint: Tiny, tmp_path: Path) -> Path:
    """Two layers in GPTQ's layout: groups of 64 but in v_proj, which has zero points."""

    def encode(module: str, weight: Array) -> tuple[Quantized, dict[str, Array]]:
        made = choose(weight, 64, symmetric="v_proj" not in module)
        return made, gptq(module, made)

    source = tiny_checkpoint("llama", hidden_size=128, intermediate_size=256)
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 64}
    requantized_folder(source, tmp_path / "gptq", settings, encode)
    return tmp_path / "gptq"


def integers_of(program: Program) -> dict[str, Quantized]:
    """What the file holds for each matrix of int4, by parameter."""
    weights = {weight.tensor: weight for weight in program.plan.weights}
    begin: dict[str, int] = {}
    found = {}
    for row in program.documents.report["weights"]:
        weight = weights[row["tensor"]]
        if weight.format.code != "i4":
            continue
        unpacked = unpack_integers(program.weight_data(weight), weight.format, *weight.shape)
        first = begin.get(row["tensor"], 0)
        begin[row["tensor"]] = first + row["shape"][0]
        part = slice(first, begin[row["tensor"]])
        q, scales = unpacked.codes[part].copy(), unpacked.scale[part].astype(np.float32)
        groups = np.arange(q.shape[1]) // (q.shape[1] // scales.shape[1])
        found[row["name"]] = Quantized(q, np.zeros_like(scales), scales, groups)
    return found


def test_the_file_holds_the_checkpoints_integers(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    path = export(Recipe(model=str(folder)), output=tmp_path / "x.edge")
    with Program.open(path) as program:
        found, report = integers_of(program), program.documents.report
    assert len(checkpoint.integer_groups) == 12
    for name in checkpoint.integer_groups:
        own = checkpoint.integers(name)
        assert np.array_equal(found[name].q, own.q)
        assert np.array_equal(found[name].scales, own.scales)
    rows = {row["name"]: row for row in report["weights"]}
    assert {name for name, row in rows.items() if row["taken_over"]} == set(
        checkpoint.integer_groups
    )
    assert all(rows[name]["sqnr_db"] is None for name in checkpoint.integer_groups)
    values = rows["model.layers.0.self_attn.v_proj.weight"]
    assert (values["format"], values["taken_over"]) == ("i4g32", False)
    assert report["notes"] == [
        "checkpoint quantized with gptq: 12 matrices are int4 in groups of 64",
        "checkpoint quantized with gptq: 2 matrices are read as floats (zero points)",
        "12 of 16 matrices taken over as the checkpoint's own int4; quantized here: "
        "model.embed_tokens.weight, model.layers.0.self_attn.v_proj.weight, "
        "model.layers.1.self_attn.v_proj.weight and 1 more",
        "12 of them: i4g64, the checkpoint's own groups, instead of i4g32",
    ]


def test_logits_are_those_of_the_dequantized_model(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tokens = np.random.default_rng(5).integers(0, 288, 40).tolist()
    reference = AutoModelForCausalLM.from_pretrained(folder / "dense", dtype=torch.float32)
    with torch.no_grad():
        expected = reference(torch.tensor([tokens])).logits[0].numpy()
    path = export(
        Recipe(model=str(folder), scheme="fp32", verify=False), output=tmp_path / "x.edge"
    )
    with edge_llm.load(path) as llm:
        got = llm.logits(tokens)
    assert float(np.abs(got - expected).max() / expected.std()) < 1e-4


def test_the_oracle_has_the_same_integers(folder: Path) -> None:
    tokens = torch.arange(20)
    everywhere = (tokens, tokens, torch.zeros_like(tokens), tokens)
    recipe = Recipe(model=str(folder), head="f32", embedding="f32", overrides={"*v_proj*": "f32"})
    dense = replace(recipe, model=str(folder / "dense"))
    own = eager_model(recipe, slots=1, tokens=20)(*everywhere)
    rounded = eager_model(dense, slots=1, tokens=20)(*everywhere)
    # The dense folder's numbers lie on the same grid, but its scales are chosen anew.
    assert not torch.equal(own, rounded)
    same = eager_model(replace(recipe, requantize=True), slots=1, tokens=20)(*everywhere)
    assert torch.equal(same, rounded)


def test_requantize_ignores_them(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(model=str(folder), verify=False, requantize=True, group_size=128)
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        report = program.documents.report
    assert not any(row["taken_over"] for row in report["weights"])
    assert report["formats"]["i4g128"]["weights"] == 14
    assert not any("taken over" in note for note in report["notes"])


def test_other_formats_are_made_of_the_dequantized_weights(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(model=str(folder), verify=False, overrides={"*q_proj*": "i8"})
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        report = program.documents.report
    rows = {row["name"]: row for row in report["weights"]}
    query = rows["model.layers.0.self_attn.q_proj.weight"]
    assert (query["format"], query["taken_over"]) == ("i8", False)
    assert query["sqnr_db"] > 40
    assert (
        "int4 in the checkpoint, another format here: model.layers.0.self_attn.q_proj.weight, "
        "model.layers.1.self_attn.q_proj.weight" in report["notes"]
    )


def stored(q: NDArray[np.int8], scales: NDArray[np.float32], group: int) -> Parameters:
    def read(name: str) -> NDArray[np.float32]:
        return q * scales.repeat(group, axis=1)

    return Parameters(read, "signed", {"a": group}, lambda name: Integers(q, scales, group))


def test_one_parameter_in_two_formats() -> None:
    q = np.random.default_rng(0).integers(-8, 8, (5, 64), np.int8)
    scales = np.full((5, 2), 0.25, np.float32)
    parameters = stored(q, scales, 32)
    own = parameters.matrix("a", "i4g32")
    assert own.taken_over
    assert own.floats(slice(0, 5)) is None
    rows = own.prepare(torch.tensor([3, 1]))
    assert isinstance(rows, QuantizedWeight)
    assert np.array_equal(rows.q, q[[3, 1]])
    other = parameters.matrix("a", "i8")
    assert not other.taken_over
    assert other.floats(slice(0, 5)) is not None


def test_integers_that_do_not_fit_their_announcement() -> None:
    parameters = stored(np.zeros((5, 64), np.int8), np.zeros((5, 3), np.float32), 32)
    with pytest.raises(ExportError, match=r"a: got scales \[5, 3\] in groups of 32"):
        parameters.matrix("a", "i4g32")


def test_a_tied_table_is_taken_over_for_both(tiny_checkpoint: Tiny) -> None:
    checkpoint: Any = open_checkpoint(tiny_checkpoint("llama", tie_word_embeddings=True))
    checkpoint = replace(checkpoint, integer_groups={TABLE: 32}, integers=lambda name: name)
    made = parameters_of(checkpoint, Recipe(), tied={HEAD: TABLE}, constants={})
    assert made.groups == {TABLE: 32, HEAD: 32}
    assert made.integers(HEAD) == TABLE


def test_gguf_q4_0_and_an_adapter(
    tiny_checkpoint: Tiny, make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
    module = "model.layers.0.self_attn.q_proj"
    thin = {"A": torch.ones(1, 64), "B": torch.ones(64, 1)}
    save_file(
        {f"base_model.model.{module}.lora_{half}.weight": thin[half] for half in "AB"},
        adapter / "adapter_model.safetensors",
    )
    path = make_gguf(tiny_checkpoint("llama"), "Q4_0")
    recipe = Recipe(model=str(path), verify=False, adapters=[{"path": str(adapter)}])
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        found, report = integers_of(program), program.documents.report
    own = open_checkpoint(path)
    for row in report["weights"]:
        name = row["name"]
        if name in found:
            assert row["taken_over"] == (name != f"{module}.weight")
            same = np.array_equal(found[name].q, own.integers(name).q)
            assert same == row["taken_over"]
