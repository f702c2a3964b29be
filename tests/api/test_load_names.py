"""`edge_llm.load` takes what the command line takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import edge_llm
from edge_llm.errors import AmbiguousNameError, ProgramError, SourceError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "programs"
    folder.mkdir(parents=True)
    return folder


def test_names_paths_and_checkpoints(
    programs: Path, tiny_program: Callable[..., Path], tiny_checkpoint: Callable[..., Path]
) -> None:
    file = tiny_program("fp32")
    (programs / "mine.edge").write_bytes(file.read_bytes())
    for name in ("mine", "mine.edge", str(file), file):
        with edge_llm.load(name) as llm:
            assert llm.generate("hi", max_tokens=1, ignore_eos=True).token_ids
    with edge_llm.load(str(tiny_checkpoint("qwen3"))) as llm:
        assert llm.program.path.parent == programs


def test_what_is_not_there(programs: Path, tiny_program: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match="no program 'nothing'"):
        edge_llm.load("nothing")
    with pytest.raises(ProgramError, match="cannot be read"):
        edge_llm.load("./nothing.edge")
    with pytest.raises(ProgramError, match="cannot be read"):
        edge_llm.load(Path("nothing.edge"))
    for name in ("mine-8da4w", "mine-fp32"):
        (programs / f"{name}.edge").write_bytes(tiny_program("fp32").read_bytes())
    with pytest.raises(AmbiguousNameError, match="mine-8da4w"):
        edge_llm.load("mine")
