"""Models on Hugging Face, with a stand-in for its client."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_llm import catalogue
from edge_llm.errors import MissingDependencyError, SourceError

Snapshot = Callable[..., str]


class GatedRepoError(OSError):
    pass


class RepositoryNotFoundError(OSError):
    pass


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[[Snapshot], None]:
    """Puts a function in the place of ``huggingface_hub.snapshot_download``."""

    def install(snapshot: Snapshot) -> None:
        module = ModuleType("huggingface_hub")
        errors = ModuleType("huggingface_hub.errors")
        vars(module)["snapshot_download"] = snapshot
        vars(errors).update(
            GatedRepoError=GatedRepoError, RepositoryNotFoundError=RepositoryNotFoundError
        )
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)

    return install


@pytest.fixture
def snapshot_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def raising(error: Exception) -> Snapshot:
    def snapshot(repository: str, **options: Any) -> str:
        raise error

    return snapshot


def offline(folder: Path) -> Snapshot:
    """A client that has the folder in its cache and no network."""

    def snapshot(repository: str, *, local_files_only: bool = False, **options: Any) -> str:
        if not local_files_only:
            raise ConnectionError("Name or service not known\nmore")
        return str(folder)

    return snapshot


def hint_of(error: SourceError | MissingDependencyError) -> str:
    assert error.hint is not None
    return error.hint


def test_without_network(client: Callable[[Snapshot], None]) -> None:
    client(raising(ConnectionError("Name or service not known\nand much more")))
    with pytest.raises(SourceError) as caught:
        catalogue.pull("qwen3-0.6b")
    assert str(caught.value).endswith("from Hugging Face: Name or service not known")
    assert "hf download Qwen/Qwen3-0.6B --local-dir DIR" in hint_of(caught.value)
    assert "--model" in hint_of(caught.value)


def test_resolve_explains_what_to_do(client: Callable[[Snapshot], None]) -> None:
    client(raising(ConnectionError("offline")))
    with pytest.raises(SourceError, match=r"llama3\.2-1b is not on this machine yet") as caught:
        catalogue.resolve("llama3.2-1b")
    hint = hint_of(caught.value)
    assert "`edge-llm pull llama3.2-1b`" in hint
    assert "https://www.llama.com/llama3_2/license/" in hint
    assert "https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct" in hint
    assert "pass its path as --model" in hint


def test_gated(client: Callable[[Snapshot], None]) -> None:
    client(raising(GatedRepoError("401")))
    with pytest.raises(SourceError, match="does not let you have meta-llama") as caught:
        catalogue.pull("llama3.2-3b")
    assert "accept its licence (llama3.2, https://www.llama.com" in hint_of(caught.value)
    assert "HF_TOKEN" in hint_of(caught.value)


def test_gone(client: Callable[[Snapshot], None]) -> None:
    client(raising(RepositoryNotFoundError("404")))
    with pytest.raises(SourceError, match=r"has no Qwen/Qwen3-0\.6B") as caught:
        catalogue.pull("qwen3-0.6b")
    assert "gated" not in hint_of(caught.value)


def test_cached_copy_works_offline(
    client: Callable[[Snapshot], None], snapshot_folder: Path
) -> None:
    client(offline(snapshot_folder))
    assert catalogue.pull("qwen3-0.6b") == snapshot_folder
    assert catalogue.resolve("qwen3-0.6b") == snapshot_folder
    assert catalogue.is_pulled(catalogue.find("qwen3-0.6b"))


@pytest.mark.parametrize("index", [None, {"weight_map": {"a": "x.safetensors"}}, {}, []])
def test_half_a_copy_is_not_taken_for_one(
    client: Callable[[Snapshot], None], snapshot_folder: Path, index: object
) -> None:
    if index is None:
        (snapshot_folder / "model.safetensors").unlink()
    else:
        (snapshot_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    client(offline(snapshot_folder))
    assert not catalogue.is_pulled(catalogue.find("qwen3-0.6b"))
    with pytest.raises(SourceError, match="Name or service not known"):
        catalogue.pull("qwen3-0.6b")


def test_sharded_copy(client: Callable[[Snapshot], None], snapshot_folder: Path) -> None:
    (snapshot_folder / "model.safetensors").rename(snapshot_folder / "x.safetensors")
    index = {"weight_map": {"a": "x.safetensors"}}
    (snapshot_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    client(offline(snapshot_folder))
    assert catalogue.is_pulled(catalogue.find("qwen3-0.6b"))


def test_download(client: Callable[[Snapshot], None], snapshot_folder: Path) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot(repository: str, *, local_files_only: bool = False, **options: Any) -> str:
        if local_files_only:
            raise FileNotFoundError(repository)
        asked.append({"repository": repository, **options})
        return str(snapshot_folder)

    client(snapshot)
    assert catalogue.pull("qwen3-0.6b") == snapshot_folder
    assert asked[0]["repository"] == "Qwen/Qwen3-0.6B"
    assert "*.safetensors" in asked[0]["allow_patterns"]
    assert "original/*" in asked[0]["ignore_patterns"]


def test_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert not catalogue.is_pulled(catalogue.find("qwen3-0.6b"))
    with pytest.raises(MissingDependencyError, match="needs huggingface_hub") as caught:
        catalogue.pull("qwen3-0.6b")
    assert "pip install huggingface_hub" in hint_of(caught.value)


def test_the_real_client_says_when_nothing_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not catalogue.is_pulled(catalogue.find("llama3.2-1b"))
