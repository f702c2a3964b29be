"""Hugging Face folders: what is read from each file, and what is refused."""

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

from edge_llm.errors import CheckpointError, ConfigError, EdgeLLMError
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import TokenizerDirectory
from edge_llm.program.documents import GenerationDefaults

Change = Callable[[Path], None]


@pytest.fixture
def folder(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of a tied llama checkpoint, free to be changed."""
    made = tmp_path / "tiny"
    shutil.copytree(tiny_checkpoint("llama", tie_word_embeddings=True), made)
    return made


def edit_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    values.update(changes)
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "DROP"}))


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_what_is_read(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
    edit_json(folder / "config.json", mystery=1)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.name == "tiny"
    assert checkpoint.license == "apache-2.0"
    assert checkpoint.unread_config_keys == ("mystery",)
    assert checkpoint.tokenizer == TokenizerDirectory(folder)
    assert checkpoint.generation == GenerationDefaults(
        stop_ids=(258, 256), temperature=0.7, top_p=0.9
    )
    assert {path.name for path in checkpoint.sources} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    stored = load_file(folder / "model.safetensors")
    assert checkpoint.shapes == {name: tuple(t.shape) for name, t in stored.items()}
    assert all(torch.equal(tensor_of(checkpoint, name), tensor) for name, tensor in stored.items())
    with pytest.raises(CheckpointError, match="has no parameter 'nothing'"):
        checkpoint.tensor("nothing")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_shards_and_dtypes(dtype: str, tiny_checkpoint: Callable[..., Path]) -> None:
    whole = open_checkpoint(tiny_checkpoint("qwen2", dtype=dtype))
    sharded = open_checkpoint(tiny_checkpoint("qwen2", dtype=dtype, shards=3))
    assert len([path for path in sharded.sources if path.suffix == ".safetensors"]) > 1
    assert sharded.shapes == whole.shapes
    for name in whole.shapes:
        assert tensor_of(sharded, name).dtype == getattr(torch, dtype)
        assert torch.equal(tensor_of(sharded, name), tensor_of(whole, name))


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({"eos_token_id": 7}, GenerationDefaults(stop_ids=(7,))),
        ({"eos_token_id": [7, 8, 7]}, GenerationDefaults(stop_ids=(7, 8))),
        ({}, GenerationDefaults(stop_ids=(258,))),  # the config's own
        ({"eos_token_id": 7, "do_sample": False}, GenerationDefaults((7,), temperature=0.0)),
        (
            {"eos_token_id": 7, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1},
            GenerationDefaults((7,), top_k=20, min_p=0.1, repetition_penalty=1.1),
        ),
    ],
)
def test_generation_config(
    folder: Path, generation: dict[str, Any], expected: GenerationDefaults
) -> None:
    (folder / "generation_config.json").write_text(json.dumps(generation))
    assert open_checkpoint(folder).generation == expected


@pytest.mark.parametrize(
    ("generation", "said"),
    [
        ({"temperature": 3.0}, "temperature 3.0 is left out, expected a number from 0.0 to 2.0"),
        ({"temperature": "hot"}, "temperature 'hot' is left out"),
        ({"top_p": 1.5}, "top_p 1.5 is left out"),
        ({"top_k": -3}, "top_k -3 is left out, expected 0 or more"),
        ({"top_k": 1.5}, "top_k 1.5 is left out"),
        ({"suppress_tokens": [5]}, "suppress_tokens [5] is left out, which nothing here follows"),
        ({"stop_strings": ["\n\n"]}, "stop_strings ['\\n\\n'] is left out"),
        ({"num_beams": 4, "no_repeat_ngram_size": 0}, "num_beams 4 is left out"),
    ],
)
def test_a_recommendation_that_cannot_be_followed_is_left_out_and_said(
    folder: Path, generation: dict[str, Any], said: str
) -> None:
    values = {"eos_token_id": 7, **generation}
    (folder / "generation_config.json").write_text(json.dumps(values))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.generation == GenerationDefaults(stop_ids=(7,))
    assert any(f"generation_config.json: {said}" in note for note in checkpoint.notes)


def test_generation_config_may_be_absent(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    assert open_checkpoint(folder).generation == GenerationDefaults(stop_ids=(258,))


def test_tied_table_stored_twice(folder: Path) -> None:
    def double(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    edit_tensors(folder, double)
    assert "lm_head.weight" not in open_checkpoint(folder).shapes


def test_a_head_that_differs_from_the_tied_table_is_used(folder: Path) -> None:
    def part(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    edit_tensors(folder, part)
    checkpoint = open_checkpoint(folder)
    assert not checkpoint.config.tie_word_embeddings
    head, table = (
        tensor_of(checkpoint, name) for name in ("lm_head.weight", "model.embed_tokens.weight")
    )
    assert torch.equal(head, table + 1)
    assert checkpoint.notes == (
        "config: tie_word_embeddings is true, but the stored lm_head.weight differs from "
        "model.embed_tokens.weight: the stored one is used",
    )


def test_no_head_and_no_tied_table(folder: Path) -> None:
    edit_json(folder / "config.json", tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight") as error:
        open_checkpoint(folder)
    assert "tie_word_embeddings is false" in str(error.value.hint)
    assert "lm_head.weight is missing" in str(error.value.hint)
    edit_tensors(folder, lambda tensors: tensors.update({"more": torch.zeros(1)}))
    edit_json(folder / "config.json", tie_word_embeddings=True)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder)
    assert error.value.hint is None


def test_a_whole_file_beside_an_index_of_other_files(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    shard = "model-00001-of-00001.safetensors"
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / shard)
    index = {"weight_map": dict.fromkeys(tensors, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = open_checkpoint(folder)
    assert all(torch.equal(tensor_of(checkpoint, name), tensors[name]) for name in tensors)
    assert checkpoint.notes == (
        "weights: those of model.safetensors; model.safetensors.index.json beside it names other "
        "files, which are not read",
    )
    (folder / "model.safetensors").unlink()
    checkpoint = open_checkpoint(folder)
    assert all(torch.equal(tensor_of(checkpoint, name), tensors[name] + 1) for name in tensors)
    assert checkpoint.notes == ()


def split(folder: Path, *, leave_out: str = "", repeat: str = "", change: float = 0.0) -> None:
    """Make two shards of the folder's file: the index lacks the tensor ``leave_out``, and the
    second shard holds ``repeat`` too, with ``change`` added."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half = len(tensors) // 2
    names = [name for name in tensors if name != repeat]
    parts = ([*names[:half], *([repeat] if repeat else [])], names[half:])
    files = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    more = {repeat: tensors[repeat] + change} if repeat else {}
    save_file({name: tensors[name] for name in parts[0]}, folder / files[0])
    save_file({name: tensors[name] for name in parts[1]} | more, folder / files[1])
    weight_map = {
        name: file
        for file, part in zip(files, parts, strict=True)
        for name in part
        if name != leave_out
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_tensor_that_the_index_leaves_out(folder: Path) -> None:
    def part(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    edit_tensors(folder, part)
    head = load_file(folder / "model.safetensors")["lm_head.weight"]
    split(folder, leave_out="lm_head.weight")
    assert torch.equal(tensor_of(open_checkpoint(folder), "lm_head.weight"), head)


def test_a_tensor_in_two_shards(folder: Path, tmp_path: Path) -> None:
    name = "model.norm.weight"
    expected = load_file(folder / "model.safetensors")[name]
    shutil.copytree(folder, tmp_path / "other")
    split(folder, repeat=name)
    assert torch.equal(tensor_of(open_checkpoint(folder), name), expected)
    split(tmp_path / "other", repeat=name, change=1.0)
    with pytest.raises(
        CheckpointError, match=r"stored twice: .model\.norm\.weight. in model-00001"
    ):
        open_checkpoint(tmp_path / "other")


def test_stored_rope_tables_are_ignored(folder: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_tensors(folder, lambda tensors: tensors.update({name: torch.ones(8)}))
    assert name not in open_checkpoint(folder).shapes


def test_every_misfit_tensor_is_in_one_error(folder: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.norm.weight"]
        tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 5)
        tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2)
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].double()

    edit_tensors(folder, spoil)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder)
    assert str(error.value).splitlines()[1:] == [
        "  dtype: 'model.embed_tokens.weight': got F64, expected one of F32, F16, BF16",
        "  shape: model.layers.0.mlp.up_proj.weight: got [3, 5], expected [96, 64]",
        "  missing: model.norm.weight, expected [64]",
        "  left over: 'model.layers.7.mlp.up_proj.weight' [2]",
    ]


def test_an_error_does_not_list_tensors_without_end(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({f"x{i}": torch.zeros(1) for i in range(1000)}))
    with pytest.raises(CheckpointError, match=r"and 900 more$") as caught:
        open_checkpoint(folder)
    assert len(str(caught.value).splitlines()) == 102
    write_index(folder, **{f"x{i}": f"m{i}.safetensors" for i in range(1000)})
    with pytest.raises(CheckpointError, match=r"are missing: \[.*\] and 990 more"):
        open_checkpoint(folder)


def write_index(folder: Path, **changes: str) -> None:
    names = load_file(folder / "model.safetensors")
    weight_map = dict.fromkeys(names, "model.safetensors") | changes
    index = {"weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


HOSTILE: dict[str, tuple[Change, str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "pickle only": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin") and None,
        "pytorch_model.bin, which is never unpickled",
    ),
    "truncated data": (
        lambda f: truncate(f / "model.safetensors", 5000),
        "is not a whole safetensors file",
    ),
    "truncated header": (
        lambda f: truncate(f / "model.safetensors", 20),
        "is not a safetensors file",
    ),
    "empty weights": (lambda f: truncate(f / "model.safetensors", 0), "is not a safetensors file"),
    "huge header": (
        lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64) and None,
        "is not a safetensors file",
    ),
    "config not JSON": (
        lambda f: (f / "config.json").write_text("{") and None,
        "is not valid JSON",
    ),
    "config too deep": (
        lambda f: (f / "config.json").write_text("[" * 100_000) and None,
        "is not valid JSON",
    ),
    "config with a number of many digits": (
        lambda f: (f / "config.json").write_text('{"a": ' + "1" * 10_000 + "}") and None,
        "is not valid JSON",
    ),
    "config is a list": (
        lambda f: (f / "config.json").write_text("[]") and None,
        "holds a JSON list, expected an object",
    ),
    "config not UTF-8": (
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe{}") and None,
        "is not UTF-8 text",
    ),
    "config too large": (
        lambda f: (f / "config.json").write_bytes(b" " * (2**24 + 1)) and None,
        "expected at most 16777216",
    ),
    "stop id beyond the vocabulary": (
        lambda f: edit_json(f / "generation_config.json", eos_token_id=[1, 288]),
        "expected ids from 0 to 287",
    ),
    "stop id of another type": (
        lambda f: edit_json(f / "generation_config.json", eos_token_id="</s>"),
        "got '</s>', expected ids",
    ),
    "index without a map": (
        lambda f: edit_json(f / "model.safetensors.index.json", metadata={}),
        "has no weight_map",
    ),
    "index out of the folder": (
        lambda f: write_index(f, **{"model.norm.weight": "../model.safetensors"}),
        "got file '../model.safetensors'",
    ),
    "index to a missing file": (
        lambda f: write_index(f, **{"model.norm.weight": "b.safetensors"}),
        "names files that are missing",
    ),
    "index to a missing tensor": (
        lambda f: write_index(f, **{"model.extra": "model.safetensors"}),
        "missing: 'model.extra' in model.safetensors, where the index puts it",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_folders(case: str, folder: Path) -> None:
    change, message = HOSTILE[case]
    change(folder)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder)
    assert message in str(error.value)


@pytest.mark.parametrize("method", ["fbgemm_fp8", "bitsandbytes"])
def test_quantized_checkpoints_are_refused_by_name(folder: Path, method: str) -> None:
    edit_json(folder / "config.json", quantization_config={"quant_method": method})
    with pytest.raises(ConfigError, match=f"quantized with '{method}'") as error:
        open_checkpoint(folder)
    assert error.value.hint is not None


def test_a_quantization_config_of_plain_weights_is_said(folder: Path) -> None:
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    edit_json(folder / "config.json", quantization_config=settings)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.notes == (
        "config: quantization_config says gptq, but no matrix is stored so: all are read as the "
        "floats that they are",
    )
    assert not checkpoint.integer_formats


def test_an_adapter_beside_the_model_is_said(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    (note,) = open_checkpoint(folder).notes
    assert note == (
        "adapter_config.json beside the model: its adapter is not merged, --adapter does that"
    )
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds an adapter .* without a model") as error:
        open_checkpoint(folder)
    assert error.value.hint == f"edge-llm export MODEL --adapter {folder}"


@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf"])
def test_a_pointer_in_place_of_the_weights_is_named(name: str, folder: Path) -> None:
    digest = "0" * 64
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 12345\n"
    (folder / name).write_text(pointer)
    with pytest.raises(CheckpointError, match=r"is a Git LFS pointer of \d+ bytes") as error:
        open_checkpoint(folder / name if name.endswith(".gguf") else folder)
    assert "git lfs pull" in str(error.value.hint)


def test_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "two" / name).touch()
    cases = {
        tmp_path / "nowhere": "does not exist",
        tmp_path: "holds no checkpoint; expected",
        tmp_path / "notes.txt": "is not a checkpoint",
        tmp_path / "two": "several .gguf files",
    }
    for path, message in cases.items():
        with pytest.raises(EdgeLLMError, match="expected a folder with config") as error:
            open_checkpoint(path)
        assert message in str(error.value)
