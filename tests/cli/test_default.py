"""Which program answers where none is named, and that it says so."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_llm.cli.main import main
from edge_llm.cli.programs import resolve_program
from edge_llm.errors import SourceError


@pytest.fixture
def store(
    tmp_path: Path, tiny_program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))

    def put(name: str) -> Path:
        path = tmp_path / "home" / "programs" / f"{name}.edge"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiny_program("fp32").read_bytes())
        return path

    return put


def test_an_export_does_not_change_who_answers(
    store: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first = store("first")
    assert resolve_program(None) == first
    assert "first (fp32, 256 tokens): the only program here" in capsys.readouterr().err
    store("second")  # the newest
    with pytest.raises(SourceError, match="2 programs are here and none was chosen") as caught:
        resolve_program(None)
    assert "first" in str(caught.value)
    assert "second" in str(caught.value)
    assert "`edge-llm default " in (caught.value.hint or "")
    assert main(["default", "first"]) == 0
    capsys.readouterr()
    assert resolve_program(None) == first
    assert "first (fp32, 256 tokens): the default of " in capsys.readouterr().err
    assert main(["default"]) == 0
    assert capsys.readouterr().out == "first\n"


def test_what_is_damaged_is_passed_over(
    store: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = store("whole")
    store("empty").write_bytes(b"")
    cut = store("cut")
    os.truncate(cut, cut.stat().st_size - 1)
    assert resolve_program(None) == whole
    said = capsys.readouterr().err
    assert "passing over empty, which is damaged: " in said
    assert "passing over cut, which is damaged: " in said
    store("other")
    with pytest.raises(SourceError, match="2 programs are here and none was chosen") as caught:
        resolve_program(None)
    assert "empty" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("size", [0, 5000])
def test_what_is_damaged_is_an_error_and_nothing_else(
    size: int, store: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(store("cut"), size)
    assert main(["run", "-m", "cut", "hi"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_set_context_that_is_too_long_is_named(
    store: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store("mine")
    monkeypatch.setenv("EDGE_LLM_CONTEXT", "100000")
    assert main(["run", "hi"]) == 1
    said = capsys.readouterr().err
    assert "the setting `context` of EDGE_LLM_CONTEXT is 100000, mine allows at most 256" in said
    assert main(["run", "hi", "--context", "256", "--max-tokens", "1"]) == 0


def test_the_environment_chooses(
    store: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store("first")
    second = store("second")
    monkeypatch.setenv("EDGE_LLM_DEFAULT", "second")
    assert resolve_program(None) == second
    assert "the default of EDGE_LLM_DEFAULT" in capsys.readouterr().err


def test_a_default_that_is_gone_is_an_error(
    store: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = store("first")
    store("second")
    assert main(["default", "first"]) == 0
    path.unlink()
    with pytest.raises(SourceError, match="no program 'first'"):
        resolve_program(None)
    assert main(["default", "--unset"]) == 0
    assert resolve_program(None).stem == "second"
    assert main(["default", "nothing"]) == 1
    assert "no program 'nothing'" in capsys.readouterr().err


def test_a_program_outside_the_store_can_be_the_default(
    store: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = store("x").rename(tmp_path / "outside.edge")
    monkeypatch.chdir(tmp_path)
    assert main(["default", "outside.edge"]) == 0
    monkeypatch.chdir("/")
    assert resolve_program(None) == outside


def test_config(store: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "threads", "2"]) == 0
    assert main(["config", "api_key", "s3cret"]) == 0
    capsys.readouterr()
    assert main(["config", "--json"]) == 0
    out = capsys.readouterr().out
    assert "s3cret" not in out
    assert json.loads(out)["threads"]["value"] == "2"
    assert main(["config", "threads"]) == 0
    assert capsys.readouterr().out == "2\n"
    assert main(["config"]) == 0
    assert "config.toml" in capsys.readouterr().out
    assert main(["config", "--unset", "threads"]) == 0
    assert main(["config", "threads"]) == 0
    assert capsys.readouterr().out == "\n"
    assert main(["config", "treads", "2"]) == 1
    assert "unknown setting 'treads'" in capsys.readouterr().err


def test_two_models_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "one", "-m", "two"]) == 1
    assert "two models are named: one and --model two" in capsys.readouterr().err
