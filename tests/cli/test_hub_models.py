"""``hf:…`` on the command line, with a hub on loopback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures_hub import FakeHub

from edge_llm.cli.main import main
from edge_llm.program.file import Program


def test_from_the_hub_to_an_answer_and_away(
    hub: FakeHub,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    repository = hub.add("Org/Tiny-Model")
    repository.revisions = ("main", "v1")
    for file in tiny_checkpoint("llama", shards=2).iterdir():
        repository.files[file.name] = file.read_bytes()

    assert main(["pull", "hf:Org/Tiny-Model@v1"]) == 0
    assert f"snapshots/{repository.commit}" in capsys.readouterr().out
    requests = len(hub.requests)
    assert main(["export", "--model", "hf:Org/Tiny-Model@v1", "--set", "gate=off"]) == 0
    assert len(hub.requests) == requests
    path = tmp_path / "home" / "programs" / "Tiny-Model-8da4w.edge"
    assert capsys.readouterr().out.strip() == str(path)
    with Program.open(path) as program:
        assert program.documents.provenance["hub"] == {
            "repository": "Org/Tiny-Model",
            "commit": repository.commit,
        }
        assert program.documents.recipe["model"] == "hf:Org/Tiny-Model@v1"
    assert main(["run", "--model", "hf:Org/Tiny-Model", "--max-tokens", "3", "hi"]) == 0
    capsys.readouterr()
    assert main(["rm", "hf:Org/Tiny-Model"]) == 0
    assert "models--Org--Tiny-Model" in capsys.readouterr().err
    assert not list(hub.cache.rglob("*.safetensors"))


def test_what_cannot_be_had(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add("Org/closed", gated=True, config__json="{}", tokenizer__json="{ }").files[
        "model.safetensors"
    ] = b"w"
    for command, said in (
        (["export", "--model", "hf:Org/none"], "has no Org/none"),
        (["pull", "hf:Org/closed"], "log in (`hf auth login`, or HF_TOKEN)"),
        (["pull", "hf:oops"], "hf:org/name[/file.gguf][@revision]"),
        (["pull", str(tmp_path)], "is a path: there is nothing to fetch"),
        (["rm", "hf:Org/none"], "is not on this machine"),
    ):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
