"""Exports that read a text first: what counts, and what goes wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_checkpoints import reference_model

from edge_llm.errors import ConfigError, ExportError
from edge_llm.export.origin.calibration import as_plain_text, calibration_file, read_calibration
from edge_llm.export.origin.calibration_ids import TOKENS
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.weights.inputs import measure
from edge_llm.export.weights.reading import reading
from edge_llm.program.file import Program
from edge_llm.program.pack import unpack_integers
from edge_llm.tokenizers.tokenizer import tokenizer_of

Tiny = Callable[..., Path]

TEXT = "The little boat went out to sea at dawn, and nobody saw it come home again. " * 12


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def made(source: Path, output: Path, *settings: str, scheme: str = "8da4w") -> Path:
    recipe = load_recipe(scheme, ["verify=false", *settings], model=str(source))
    return export(recipe, output=output)


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_what_linears_are_multiplied_with_is_measured(
    family: str, tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    source = tiny_checkpoint(family, max_position_embeddings=1024)
    path = made(source, tmp_path / "x.edge", "context=1024", scheme="fp32")
    with Program.open(path) as program:
        ids = tokenizer_of(program).encode(TEXT)
        names = {weight.tensor: (weight.name,) for weight in program.plan.weights}
    assert 256 < len(ids) <= 1024  # one window
    with reading(path, names, np.array(ids, np.int32), backend="native") as read:
        got = measure(read, lambda done, total: None)

    model = reference_model(source, 1024)
    expected: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda _, inputs, __, name=name: expected.__setitem__(name, inputs[0])
            )
    with torch.no_grad():
        model(torch.tensor([ids]))
    seen = 0
    for name, inputs in expected.items():
        tensor = next((t for t in got if t.startswith(f"{name}.") or _is_part(name, t)), None)
        if tensor is None:
            continue
        squares = inputs.reshape(len(ids), -1).double().square().mean(0)
        np.testing.assert_allclose(got[tensor].square, squares, rtol=1e-3)
        sizes = inputs.reshape(len(ids), -1).double().abs()
        np.testing.assert_allclose(got[tensor].magnitude, sizes.mean(0), rtol=1e-3)
        np.testing.assert_allclose(got[tensor].largest, sizes.amax(0), rtol=1e-3)
        seen += 1
    assert seen >= 4
    if family == "qwen3_moe":  # gates and what they let through read what the router reads
        gates = [name for name in got if name.endswith("experts.gate_proj")]
        assert gates
        for name in gates:
            router = name.replace("experts.gate_proj", "gate.weight")
            assert got[name] is got[router]


def _is_part(name: str, tensor: str) -> bool:
    """Tell whether a linear of transformers is part of a merged tensor."""
    prefix, _, last = name.rpartition(".")
    place, _, names = tensor.removesuffix(".weight").rpartition(".")
    return prefix == place and last in names.split("+")


def test_it_changes_numbers_and_no_format(
    tiny_checkpoint: Tiny, text: Path, tmp_path: Path
) -> None:
    source = tiny_checkpoint("llama")
    plain = made(source, tmp_path / "plain.edge")
    calibrated = made(source, tmp_path / "calibrated.edge", f"calibration={text}")
    again = made(source, tmp_path / "again.edge", f"calibration={text}")
    assert calibrated.read_bytes() == again.read_bytes()
    with Program.open(plain) as one, Program.open(calibrated) as other:
        assert one.plan == other.plan
        changed = 0
        for weight in one.plan.weights:
            if weight.format.is_panel and weight.format.group:
                first, second = (
                    unpack_integers(program.weight_data(weight), weight.format, *weight.matrix)
                    for program in (one, other)
                )
                changed += not np.array_equal(first.codes, second.codes)
        assert changed > 4
        documents = other.documents
    assert documents.recipe["calibration"] == "text.txt"
    digests = {entry["file"]: entry["sha256"] for entry in documents.provenance["sources"]}
    assert digests["text.txt"] == hashlib.sha256(text.read_bytes()).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {
        "plain.edge",
        "calibrated.edge",
        "again.edge",
        "text.txt",
    }


def test_a_text_comes_with_the_package(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    path = made(tiny_checkpoint("llama"), tmp_path / "x.edge", "calibration=builtin")
    with Program.open(path) as program:
        documents = program.documents
    assert documents.recipe["calibration"] == "builtin"
    digests = {entry["file"]: entry["sha256"] for entry in documents.provenance["sources"]}
    own = calibration_file("builtin")
    assert digests["calibration.jsonl"] == hashlib.sha256(own.read_bytes()).hexdigest()
    assert len(as_plain_text(read_calibration(own))) > 12_000
    notes = documents.report["notes"]
    assert any("factors moved" in note for note in notes)
    assert any("matrices rounded column after column (GPTQ)" in note for note in notes)


def test_a_calibrated_program_is_what_verify_compares(
    tiny_checkpoint: Tiny, text: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("8da4w", [f"calibration={text}"], model=str(tiny_checkpoint("llama")))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        assert program.golden is not None


def test_the_beginning_of_a_long_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x" + "é" * 2**18, encoding="utf-8")  # cut inside a character
    assert len(as_plain_text(read_calibration(path))) == 2**17
    assert TOKENS < 2**17


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"absent\.txt cannot be read: No such file"),
        (b"\xff\xfe" * 500, r"absent\.txt is not a text in UTF-8"),
        (b"Too short.", r"the text has \d+ tokens, expected at least 256"),
    ],
)
def test_texts_that_will_not_do(
    data: bytes | None, message: str, tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    path = tmp_path / "absent.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises((ConfigError, ExportError), match=message):
        made(tiny_checkpoint("llama"), tmp_path / "x.edge", f"calibration={path}")
    assert [file.name for file in tmp_path.iterdir()] == ["absent.txt"] * (data is not None)


def test_a_calibration_that_changes_nothing_is_refused(
    tiny_checkpoint: Tiny, make_gguf: Callable[..., Path], text: Path, tmp_path: Path
) -> None:
    source = make_gguf(tiny_checkpoint("llama"), "Q4_0")
    with pytest.raises(ConfigError, match="calibration would change nothing") as caught:
        made(source, tmp_path / "x.edge", f"calibration={text}")
    assert "requantize=true" in (caught.value.hint or "")
    made(source, tmp_path / "x.edge", f"calibration={text}", "requantize=true")


@pytest.mark.parametrize("scheme", ["8da8w", "fp16"])
def test_schemes_without_groups_refuse_it(scheme: str, text: Path) -> None:
    with pytest.raises(ConfigError, match=f"calibration .* scheme {scheme} has no groups"):
        Recipe(scheme=scheme, calibration=str(text))


@pytest.mark.parametrize("options", [{"scale_rule": "signed"}, {"calibration": ""}])
def test_recipes_that_contradict_themselves(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="calibration"):
        Recipe(**({"calibration": "text.txt"} | options))
