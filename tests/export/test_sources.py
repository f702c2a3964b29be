"""Sources that change, shrink or vanish while they are exported; and chat templates from files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_llm.errors import CheckpointError, ConfigError, ExportError
from edge_llm.export.origin.load import load
from edge_llm.export.origin.sources import Sources
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.weights.parameters import Matrix, Parameters
from edge_llm.program.file import Program
from edge_llm.program.formats import WeightFormat

Tiny = Callable[..., Path]


@pytest.fixture
def source(tiny_checkpoint: Tiny, tmp_path: Path) -> Path:
    """A checkpoint of our own, to be changed."""
    small = tiny_checkpoint("llama", num_hidden_layers=1)
    return Path(shutil.copytree(small, tmp_path / "source"))


def recipe_of(source: Path, *settings: str) -> Recipe:
    return load_recipe("8da4w", ["verify=false", *settings], model=str(source))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def remove(file: Path) -> None:
    file.unlink()


def rewrite(file: Path) -> None:
    """Other contents of the same size."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def replace(file: Path) -> None:
    """A copy with the same size and time."""
    shutil.copy2(file, file.with_suffix(".new"))
    os.replace(file.with_suffix(".new"), file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut, "it had [0-9,]+ bytes, now [0-9,]+"),
        (remove, "it can no longer be found"),
        (rewrite, "it was written to"),
        (replace, "another file is in its place"),
    ],
)
def test_changes_that_are_seen(change: Callable[[Path], None], said: str, source: Path) -> None:
    sources = Sources(source)
    files = [source / "config.json", source / "model.safetensors"]
    sources.add(files)
    assert sources.paths == tuple(files)
    (source / "notes.txt").write_text("not a source", encoding="utf-8")
    sources.check()
    change(files[1])
    with pytest.raises(ExportError, match=rf"model\.safetensors changed while .*: {said}"):
        sources.check()


def test_a_change_between_the_first_look_and_the_hash(source: Path) -> None:
    sources = Sources(source)
    rewrite(source / "config.json")
    sources.add([source / "config.json"])
    with pytest.raises(ExportError, match=r"config\.json changed"):
        sources.check()


@pytest.mark.parametrize(
    ("change", "file", "stage", "at"),
    [
        (cut, "model.safetensors", "pack", 1),  # after the first tensor
        (rewrite, "tokenizer.json", "pack", -1),  # after the last
        (cut, "model.safetensors", "verify", 1),
    ],
)
def test_a_source_that_changes_ends_the_export(
    change: Callable[[Path], None], file: str, stage: str, at: int, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "x.edge"
    out.parent.mkdir()
    out.write_bytes(b"older")
    changed: list[int] = []

    def progress(now: str, done: int, total: int) -> None:
        if now == stage and not changed and (at == 1 or done == total):
            change(source / file)
            changed.append(done)

    recipe = recipe_of(source, f"verify={str(stage == 'verify').lower()}")
    with pytest.raises(ExportError, match=f"{file} changed while it was exported"):
        export(recipe, output=out, progress=progress)
    assert changed
    assert [entry.name for entry in out.parent.iterdir()] == ["x.edge"]
    assert out.read_bytes() == b"older"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a mapped file cannot be cut short")
def test_a_file_that_is_cut_while_a_tensor_of_it_is_packed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = Parameters.matrix

    def late(self: Parameters, name: str, form: WeightFormat) -> Matrix:
        opened = matrix(self, name, form)
        if (source / "model.safetensors").stat().st_size > 5000:
            os.truncate(source / "model.safetensors", 5000)
        return opened

    monkeypatch.setattr(Parameters, "matrix", late)
    with pytest.raises(ExportError, match=r"it had [0-9,]+ bytes, now 5,000"):
        export(recipe_of(source), output=tmp_path / "x.edge")
    assert not (tmp_path / "x.edge").exists()


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    sources = Sources(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        sources.add([tmp_path / "absent"])
    with pytest.raises(CheckpointError, match="cannot be read"):
        Sources(tmp_path / "absent")


# --- chat templates ------------------------------------------------------------------------------

TEMPLATE = "{% for message in messages %}<<{{ message.content }}>>{% endfor %}"


def test_a_chat_template_from_a_file(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(TEMPLATE, encoding="utf-8")
    path = export(recipe_of(source, f"chat_template={file}"), output=tmp_path / "x.edge")
    with Program.open(path) as program:
        documents = program.documents
    assert documents.chat_template == TEMPLATE
    assert "mine.jinja" in [entry["file"] for entry in documents.provenance["sources"]]
    note = "chat template mine.jinja given to the model, "
    assert note + "in place of its own" in documents.report["notes"]

    (source / "tokenizer_config.json").unlink()
    loaded = load(recipe_of(source, f"chat_template={file}"))
    assert loaded.tokenizer.chat_template == TEMPLATE
    assert note + "which has none" in loaded.notes


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"\xff", "not UTF-8"),
        (b"{% for", "does not compile"),
        (b"{{ raise_exception('never') }}", "does not render"),
        (b"hello", "a user's message is not in the prompt"),
        (b"x" * 300_000, "at most 262144 are allowed"),
        (b"x" * 1_100_000, "are too many"),
    ],
)
def test_chat_templates_that_are_refused(
    content: bytes | None, said: str, source: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bad.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"bad\.jinja.*{said}"):
        export(recipe_of(source, f"chat_template={file}"), output=tmp_path / "x.edge")
