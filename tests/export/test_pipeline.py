"""The whole export on tiny checkpoints: valid files, complete reports, nothing left on failure."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_llm.errors import CheckpointError, ConfigError, ExportError, QualityGateError, SourceError
from edge_llm.export.origin.load import load
from edge_llm.export.pipeline import export, make_program
from edge_llm.export.recipes.file import load_recipe, recipe_names
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.program.file import Program
from edge_llm.runner.evaluation.golden import check_golden

Tiny = Callable[..., Path]
FAMILIES = ("llama", "qwen2", "qwen3")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_exports_every_family(
    family: str, name: str, tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    source = tiny_checkpoint(family, tie_word_embeddings=family != "llama")
    recipe = load_recipe(name, model=str(source), context=96)
    made = make_program(recipe, output=tmp_path / "tiny.edge")
    path = made.path

    with Program.open(path) as program:  # header, plan and documents are checked here
        program.verify_digests()
        assert program.plan.context == 96
        assert program.documents.model.kv_dtype == recipe.kv_format()
        documents = program.documents
        assert documents.model.name == source.name
        assert (documents.model.family, documents.model.trained_context) == (family, 256)
        assert documents.generation.stop_ids == (258, 256)
        assert documents.chat_template is not None
        assert documents.recipe["scheme"] == name

        report = documents.report
        stored = {weight.tensor for weight in program.plan.weights}
        assert {row["tensor"] for row in report["weights"]} == stored
        assert sum(row["bytes"] for row in report["weights"]) == sum(
            program.tensors[tensor].nbytes for tensor in stored
        )
        assert report["parameters"] == documents.model.parameters
        tied = {} if family == "llama" else {"lm_head.weight": "model.embed_tokens.weight"}
        assert report["tied"] == tied
        assert "context 96 of the model's 256 tokens" in report["notes"]
        assert report == made.report
        assert set(made.seconds) >= {"load", "plan", "pack", "verify"}

        same, quality = made.verification["same_numbers"], made.verification["unquantized"]
        assert same["positions"] == 5 * 32
        assert same["kl"] < 1e-3
        assert same["top1_margin"] < 0.1
        bound = {"fp32": 1e-9, "fp16": 1e-4, "bf16": 1e-3, "8da8w": 0.02, "8da4w": 0.5}[name]
        assert quality["kl"] < bound
        golden = program.golden
        assert golden is not None
        # a greedy answer begins with the likeliest id at the prompt's end that has a token
        for following, likeliest in zip(golden.next, golden.top_ids, strict=True):
            assert following[0] == likeliest[likeliest < documents.tokenizer.size][0]
        check_golden(program, threads=1)
        assert bool((np.diff(golden.top_logits, axis=1) <= 0).all())
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.edge"]


def test_sources_and_versions_are_recorded(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    source = tiny_checkpoint("llama", shards=2)
    recipe = load_recipe("8da8w", ["verify=false"], model=str(source))
    made = make_program(recipe, output=tmp_path / "x")
    assert made.verification == {"skipped": "off in the recipe"}
    with Program.open(made.path) as program:
        provenance = program.documents.provenance
        assert program.golden is None
    hashes = {entry["file"]: entry["sha256"] for entry in provenance["sources"]}
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} <= set(hashes)
    assert sum(name.endswith(".safetensors") for name in hashes) >= 2
    for name, digest in hashes.items():
        assert digest == hashlib.sha256((source / name).read_bytes()).hexdigest()
    assert set(provenance["versions"]) == {"edge-llm"}


def test_the_same_recipe_gives_the_same_file(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    recipe = load_recipe("8da4w", model=str(tiny_checkpoint("qwen2")))
    paths = [export(recipe, output=tmp_path / f"{index}.edge") for index in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_bfloat16_checkpoint_is_stored_as_it_is(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    source = tiny_checkpoint("qwen3", dtype="bfloat16")
    path = export(load_recipe("bf16", model=str(source)), output=tmp_path / "x.edge")
    with Program.open(path) as program:
        rows = program.documents.report["weights"]
        assert all(row["sqnr_db"] is None for row in rows)


def test_mixed_formats(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    settings = ["overrides.*layers.0.self_attn.v_proj*=i8", "head=f16", "group_size=64"]
    source = tiny_checkpoint("llama", tie_word_embeddings=True)
    recipe = load_recipe("8da4w", settings, model=str(source))
    made = make_program(recipe, output=tmp_path / "x.edge")
    with Program.open(made.path) as program:
        formats = {weight.name: weight.format.name for weight in program.plan.weights}
        report = program.documents.report
    assert formats["model.layers.0.self_attn.q_proj+k_proj.weight"] == "i4g64"
    assert formats["model.layers.0.self_attn.v_proj.weight"] == "i8"
    assert formats["lm_head.weight"] == "f16"
    assert report["tied"] == {}
    assert any("mlp.down_proj.weight: i4g32 instead of i4g64" in note for note in report["notes"])
    assert made.verification["same_numbers"]["kl"] < 1e-3


def test_progress_reaches_the_end_of_every_stage(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    calls: dict[str, list[tuple[int, int]]] = {}
    export(
        load_recipe("8da8w", model=str(tiny_checkpoint("llama"))),
        output=tmp_path / "x.edge",
        progress=lambda stage, done, total: calls.setdefault(stage, []).append((done, total)),
    )
    assert list(calls) == ["pack", "hash sources", "verify"]
    for steps in calls.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] > 0


def test_the_default_path_is_in_the_store(
    tiny_checkpoint: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path))
    source = tiny_checkpoint("llama")
    settings = ["verify=false", "group_size=64"]
    for more, name in (([], "8da4w-g64"), (["activations=group"], "8da4w-g64-by-group")):
        path = export(load_recipe("8da4w", [*settings, *more], model=str(source)))
        assert path == tmp_path / "programs" / f"{source.name}-{name}.edge"
        assert path.is_file()


@pytest.mark.parametrize("stage", ["pack", "verify"])
def test_an_interrupted_export_leaves_nothing(
    stage: str, tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    def interrupt(now: str, done: int, total: int) -> None:
        if now == stage:
            raise KeyboardInterrupt

    recipe = load_recipe("8da4w", model=str(tiny_checkpoint("llama")))
    with pytest.raises(KeyboardInterrupt):
        export(recipe, output=tmp_path / "x.edge", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_program_below_the_gate_is_not_kept(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    recipe = load_recipe("8da4w", ["gate.max_quality_kl=1e-6"], model=str(tiny_checkpoint("llama")))
    with pytest.raises(QualityGateError, match="KL to the unquantized checkpoint"):
        export(recipe, output=tmp_path / "x.edge")
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_until_the_new_one_is_done(
    tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    path = tmp_path / "x.edge"
    path.write_bytes(b"older")
    recipe = load_recipe("8da4w", ["gate.max_quality_kl=1e-6"], model=str(tiny_checkpoint("llama")))
    with pytest.raises(QualityGateError):
        export(recipe, output=path)
    assert path.read_bytes() == b"older"


def test_stop_ids_of_the_tokenizers_config_alone(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "source")
    (folder / "generation_config.json").write_text('{"eos_token_id": [256]}')
    loaded = load(Recipe(model=str(folder)))
    assert loaded.generation.stop_ids == (256, 258)
    assert "stop ids: 258 added, which the tokenizer ends texts with" in loaded.notes


def test_a_tokenizer_with_more_tokens_than_rows(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "source")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    some = tokenizer["added_tokens"][-1]
    tokenizer["added_tokens"] += [
        some | {"id": number, "content": f"<|extra_{number}|>"} for number in range(265, 289)
    ]
    path.write_text(json.dumps(tokenizer))
    message = "the tokenizer of source has 289 tokens, expected at most the 288 rows"
    with pytest.raises(CheckpointError, match=message):
        export(Recipe(model=str(folder)), output=tmp_path / "x.edge")
    assert not (tmp_path / "x.edge").exists()


def test_a_machine_without_memory(
    tiny_checkpoint: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: Any, **settings: Any) -> None:
        raise MemoryError("Unable to allocate 9.31 GiB")

    monkeypatch.setattr(import_module("edge_llm.export.pipeline"), "pack", exhausted)
    recipe = Recipe(model=str(tiny_checkpoint("llama")))
    with pytest.raises(ExportError, match=r"out of memory: Unable to allocate 9\.31 GiB"):
        export(recipe, output=tmp_path / "x.edge")
    assert not list(tmp_path.iterdir())


def test_refusals(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    source = tiny_checkpoint("llama")
    with pytest.raises(ConfigError, match="no model is named"):
        export(load_recipe("fp32"))
    for wrong in ("nope", None, {"model": "nope"}):
        with pytest.raises(
            ConfigError, match=f"recipe is of type {type(wrong).__name__}, exp"
        ) as e:
            export(wrong)  # type: ignore[arg-type]
        assert "Recipe(model=" in str(e.value.hint)
    with pytest.raises(ConfigError, match="context is 512, the model's own is 256"):
        export(load_recipe("fp32", model=str(source), context=512))
    with pytest.raises(ConfigError, match="no export backend 'npu'"):
        export(load_recipe("fp32", ["backend=npu"], model=str(source)))
    with pytest.raises(SourceError):
        export(load_recipe("fp32", model="no-such-model-anywhere"))
    damaged = tmp_path / "damaged"
    shutil.copytree(source, damaged)
    (damaged / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError):
        export(load_recipe("fp32", model=str(damaged)))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="there is no folder"):
        export(load_recipe("fp32", model=str(source)), output=tmp_path / "file" / "x.edge")
