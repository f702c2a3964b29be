"""Names mean programs, models, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_llm import catalogue
from edge_llm.errors import AmbiguousNameError, SourceError


def program(home: Path, stem: str, model: str | None = None) -> Path:
    """Put a file into the store that says nothing but its model's name."""
    path = home / "programs" / f"{stem}.edge"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {} if model is None else {"edge_llm.model": json.dumps({"name": model})}
    header = json.dumps({"__metadata__": facts}).encode()
    header += b" " * (-(len(header) + 8) % 64)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def test_a_program_goes_by_its_own_name_from_any_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(home, "x1-8da4w", "my-qwen")
    program(home, "other", "other")
    monkeypatch.chdir(tmp_path)
    for name in ("my-qwen", "MY-Qwen", "x1-8da4w", "x1-8da4w.edge", str(path)):
        assert catalogue.find_program(name) == path


def test_several_of_one_name_are_listed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(home, "smollm2-135m-fp32", "smollm2-135m")
    chosen = program(home, "smollm2-135m-8da4w", "smollm2-135m")
    with pytest.raises(AmbiguousNameError) as caught:
        catalogue.find_program("smollm2-135m")
    assert "smollm2-135m-fp32" in str(caught.value)
    assert "smollm2-135m-8da4w" in str(caught.value)
    assert "edge-llm default smollm2-135m-" in (caught.value.hint or "")
    monkeypatch.setenv("EDGE_LLM_DEFAULT", "smollm2-135m-8da4w")
    assert catalogue.find_program("smollm2-135m") == chosen


def test_an_alias_of_the_catalogue_finds_its_program(home: Path) -> None:
    path = program(home, "llama3.2-1b-8da4w", "llama3.2-1b")
    assert catalogue.find_program("llama3.2-1b") == path
    assert catalogue.find_program("meta-llama/Llama-3.2-1B-Instruct") == path


def test_the_beginning_of_a_programs_name_comes_before_the_catalogue(home: Path) -> None:
    path = program(home, "smollm2-135m-8da4w", "smollm2-135m")
    assert catalogue.find("smollm2").name != "smollm2-135m"
    assert catalogue.find_program("smollm2") == path


def test_a_near_miss_is_suggested(home: Path) -> None:
    program(home, "my-assistant", "my-assistant")
    with pytest.raises(SourceError) as caught:
        catalogue.find_program("my-asistant")
    assert "Did you mean my-assistant" in (caught.value.hint or "")


def test_what_means_a_model(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program(home, "mine")
    (tmp_path / "here.gguf").write_bytes(b"")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (tmp_path / "plain").mkdir()
    models = ["mine", "mine.edge", "here.gguf", "./folder", str(folder), "hf:a/b"]
    models += ["https://host/x.edge#sha256=0", "smollm2-135m", "missing/x.gguf"]
    prompts = ["hello", "mine is better", "https://host/page", "folder", "plain", "./plain"]
    prompts += ["x.gguf", "", "mine\n", "a" * 5000, "\0"]
    assert [text for text in models if not catalogue.means_model(text)] == []
    assert [text for text in prompts if catalogue.means_model(text)] == []
