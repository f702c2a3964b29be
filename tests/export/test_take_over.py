"""Integers of a checkpoint go into the program as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from fixtures_quantized import Array, Quantized, awq, choose, gptq, requantized_folder
from safetensors.torch import save_file

import edge_llm
from edge_llm.errors import ExportError
from edge_llm.export.outcome import Outcome
from edge_llm.export.pipeline import export, make_program
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.verification.oracle import eager_model
from edge_llm.export.weights.parameters import Parameters, parameters_of
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.program.file import Program
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.integers import Integers
from edge_llm.program.pack import unpack_integers

Tiny = Callable[..., Path]
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def folder(tiny_checkpoint: Tiny, tmp_path: Path) -> Path:
    """Two layers in GPTQ's layout: groups of 64, all symmetric but q_proj."""

    def encode(module: str, weight: Array) -> tuple[Quantized, dict[str, Array]]:
        made = choose(weight, 64, symmetric="q_proj" not in module)
        return made, gptq(module, made)

    source = tiny_checkpoint("llama", hidden_size=128, intermediate_size=256)
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 64}
    requantized_folder(source, tmp_path / "gptq", settings, encode)
    return tmp_path / "gptq"


def integers_of(program: Program) -> dict[str, Integers]:
    """Return what the file holds for each matrix of integers, by parameter."""
    weights = {weight.tensor: weight for weight in program.plan.weights}
    begin: dict[str, int] = {}
    found = {}
    for row in program.documents.report["weights"]:
        weight = weights[row["tensor"]]
        if weight.format.is_float:
            continue
        whole = unpack_integers(program.weight_data(weight), weight.format, *weight.shape)
        first = begin.get(row["tensor"], 0)
        begin[row["tensor"]] = first + row["shape"][0]
        found[row["name"]] = whole.rows(slice(first, begin[row["tensor"]]))
    return found


def assert_equal(one: Integers, other: Integers) -> None:
    """The same numbers, in all parts."""
    assert one.format == other.format
    for part in ("codes", "scale", "minimum", "factor", "minimum_factor"):
        mine, theirs = getattr(one, part), getattr(other, part)
        assert (mine is None) == (theirs is None), part
        assert mine is None or np.array_equal(mine, theirs), part


def test_the_file_holds_the_checkpoints_integers(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    path = export(Recipe(model=str(folder)), output=tmp_path / "x.edge")
    with Program.open(path) as program:
        found, report = integers_of(program), program.documents.report
    held = checkpoint.integer_formats
    assert len(held) == 14
    for name in held:
        assert_equal(found[name], checkpoint.integers(name))
    rows = {row["name"]: row for row in report["weights"]}
    assert {name for name, row in rows.items() if row["outcome"] == "unchanged"} == set(held)
    assert all(rows[name]["sqnr_db"] is None for name in held)
    values = rows["model.layers.0.self_attn.v_proj.weight"]
    assert (values["format"], values["source"]) == ("i4g64", "gptq, i4g64")
    assert rows[TABLE]["outcome"] == "rounded"
    assert rows[TABLE]["source"] == "F32"
    assert report["notes"] == [
        "checkpoint quantized with gptq: 12 matrices hold i4g64",
        "checkpoint quantized with gptq: 2 matrices hold u4g64z",
        "14 of 16 matrices taken over as the checkpoint's own integers; quantized here: "
        "model.embed_tokens.weight, lm_head.weight",
        "2 of them: u4g64z, the checkpoint's own format, instead of i4g32",
        "10 of them: i4g64, the checkpoint's own format, instead of i4g32",
        "2 of them: i4g64, the checkpoint's own format, instead of i8",
    ]


def gptq_asymmetric(weight: Array, name: str, group: int) -> tuple[Quantized, dict[str, Array]]:
    made = choose(weight, group, symmetric=False)
    return made, gptq(name, made)


def awq_asymmetric(weight: Array, name: str, group: int) -> tuple[Quantized, dict[str, Array]]:
    made = choose(weight, group, symmetric=False)
    return made, awq(name, made)


ZEROS = {"gptq": gptq_asymmetric, "awq": awq_asymmetric}
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1}


def logits_agree(made: Outcome) -> None:
    """The program computes what eager PyTorch computes of the same numbers, up to the rounding of
    activations, which another order of additions tips over."""
    same = made.verification["same_numbers"]
    assert same["kl"] < 1e-3
    assert same["cosine"] > 0.9999


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("method", ZEROS)
def test_zero_points_come_back_exactly(
    method: str, group: int, tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    settings = {"quant_method": method, "bits": 4, "group_size": group}
    chosen = requantized_folder(
        tiny_checkpoint("llama", **WIDE),
        tmp_path / method,
        settings,
        lambda module, weight: ZEROS[method](weight, module, group),
    )
    exported = make_program(Recipe(model=str(tmp_path / method)), output=tmp_path / "x.edge")
    path = exported.path
    with Program.open(path) as program:
        found, report = integers_of(program), program.documents.report
    rows = {row["name"]: row for row in report["weights"]}
    for name, made in chosen.items():
        own = found[name]
        assert own.format.name == f"u4g{group}z"
        assert own.minimum is not None
        assert np.array_equal(own.codes, made.q)
        assert np.array_equal(own.scale, made.scales)
        assert np.array_equal(own.minimum, made.zeros)
        assert np.array_equal(own.dequantize(), made.weight)
        n, k = made.q.shape
        source = n * k // 2 + n * k // group * 2.5  # codes; scales and zeros
        # zeros are bytes here; a row has its constant
        assert rows[name]["bytes"] <= source + n * k // group * 0.5 + 4 * n
    logits_agree(exported)


# Format and bits of a weight in the program; 5 % more than in the file at most.
GRIDS = {
    "Q4_0": ("i4g32", 4.5),
    "Q4_1": ("u4g32m", 5.0),
    "Q4_K": ("u4g32k", 4.625),
    "Q5_0": ("i5g32", 5.5),
    "Q5_1": ("u5g32m", 6.0),
    "Q5_K": ("u5g32k", 5.625),
    "Q6_K": ("i6g16k", 6.5625),
    "Q8_0": ("i8g32", 8.5),
    "IQ4_NL": ("nl4g32", 4.5),
    "IQ4_XS": ("nl4g32k", 4.3125),
    "MXFP4": ("e2m1g32", 4.25),
}


@pytest.mark.parametrize("quant", GRIDS)
def test_grids_of_gguf_files_come_back_exactly(
    quant: str, tiny_checkpoint: Tiny, make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_checkpoint("qwen2", **WIDE)
    file = make_gguf(folder, quant)
    made = make_program(Recipe(model=str(file)), output=tmp_path / "x.edge")
    with Program.open(made.path) as program:
        found, report = integers_of(program), program.documents.report
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 1)
    form, bits = GRIDS[quant]
    matrices = [row for row in report["weights"] if row["format"] != "raw_f32"]
    assert len(matrices) == 9
    for row in matrices:
        assert (row["format"], row["source"], row["outcome"]) == (form, quant, "unchanged")
        stored = tensors[str(names.get_name(row["name"], try_suffixes=(".weight",)))]
        values = gguf.quants.dequantize(stored.data, stored.tensor_type)
        assert np.array_equal(found[row["name"]].dequantize(), values)
        n, k = row["shape"]
        assert row["bytes"] <= bits * n * k / 8 + 4 * n
        assert bits * n * k / 8 <= stored.n_bytes * 1.05
    logits_agree(made)


def test_logits_are_near_those_of_the_grid_in_floats(
    tiny_checkpoint: Tiny, make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    """A program of floats made of the same file loses nothing: what is left is the rounding of
    activations."""
    folder = tiny_checkpoint("qwen2", **WIDE)
    tokens = np.random.default_rng(5).integers(0, 288, 40).tolist()
    for quant in GRIDS:
        file = make_gguf(folder, quant, name=quant)
        logits = []
        for scheme in ("8da4w", "fp32"):
            recipe = Recipe(model=str(file), scheme=scheme, verify=False)
            path = export(recipe, output=tmp_path / f"{quant}.{scheme}.edge")
            with edge_llm.load(path) as llm:
                logits.append(llm.logits(tokens))
        got, expected = logits
        assert float(np.square(got - expected).mean() ** 0.5 / expected.std()) < 0.05, quant


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
    recipe = Recipe(model=str(folder), head="f32", embedding="f32", overrides={"*q_proj*": "f32"})
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
    assert not any(row["outcome"] == "unchanged" for row in report["weights"])
    assert report["formats"]["i4g128"]["weights"] == 12  # v_proj has eight bits
    assert not any("taken over" in note for note in report["notes"])


def test_other_formats_are_made_of_the_dequantized_weights(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(model=str(folder), verify=False, overrides={"*q_proj*": "i8"})
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        report = program.documents.report
    rows = {row["name"]: row for row in report["weights"]}
    query = rows["model.layers.0.self_attn.q_proj.weight"]
    assert (query["format"], query["outcome"]) == ("i8", "rounded")
    assert query["sqnr_db"] > 40
    assert (
        "integers in the checkpoint, another format here: model.layers.0.self_attn.q_proj.weight, "
        "model.layers.1.self_attn.q_proj.weight" in report["notes"]
    )


I4G32 = WEIGHT_FORMATS["i4g32"]


def stored(integers: Integers, announced: WeightFormat = I4G32) -> Parameters:
    return Parameters(
        lambda name: integers.dequantize(), "signed", {"a": announced}, lambda name: integers
    )


def test_one_parameter_in_two_formats() -> None:
    codes = np.random.default_rng(0).integers(-8, 8, (5, 64), np.int8)
    integers = Integers(I4G32, codes, np.full((5, 2), 0.25, np.float16))
    parameters = stored(integers)
    own = parameters.matrix("a", I4G32)
    assert own.taken_over
    assert own.floats(slice(0, 5)) is None
    rows = own.prepare(np.array([3, 1])).weight
    assert isinstance(rows, Integers)
    assert np.array_equal(rows.codes, codes[[3, 1]])
    other = parameters.matrix("a", WEIGHT_FORMATS["i8"])
    assert not other.taken_over
    assert other.floats(slice(0, 5)) is not None


def test_integers_that_do_not_fit_their_announcement() -> None:
    integers = Integers(I4G32, np.zeros((5, 64), np.int8), np.zeros((5, 2), np.float16))
    parameters = stored(integers, WEIGHT_FORMATS["i4g64"])
    with pytest.raises(ExportError, match="a: got i4g32, expected i4g64"):
        parameters.matrix("a", WEIGHT_FORMATS["i4g64"])


def test_a_tied_table_is_taken_over_for_both(tiny_checkpoint: Tiny) -> None:
    checkpoint: Any = open_checkpoint(tiny_checkpoint("llama", tie_word_embeddings=True))
    checkpoint = replace(checkpoint, integer_formats={TABLE: I4G32}, integers=lambda name: name)
    made = parameters_of(checkpoint, Recipe(), tied={HEAD: TABLE}, constants={})
    assert made.stored == {TABLE: I4G32, HEAD: I4G32}
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
            unchanged = row["outcome"] == "unchanged"
            assert unchanged == (name != f"{module}.weight")
            if unchanged:
                assert_equal(found[name], own.integers(name))
