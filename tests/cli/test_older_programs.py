"""Program files of an older format: listed, passed over, refused with what to do, or made anew."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_llm.cli import programs
from edge_llm.cli.main import main
from edge_llm.errors import ProgramError
from edge_llm.program.file import Program
from edge_llm.program.summary import summary_of
from edge_llm.program.version import FORMAT, FORMAT_KEY, check_version

DEFAULT = "smollm2-135m-8da4w"


@pytest.fixture
def store(
    tmp_path: Path, tiny_program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """``store(name, age, version=FORMAT)`` puts a program of that format into an empty store."""
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path))
    monkeypatch.setattr(programs, "_make_default", lambda reason: Path("made", reason))

    def put(name: str, age: int, version: str = FORMAT) -> Path:
        path = tmp_path / "programs" / f"{name}.edge"
        path.parent.mkdir(exist_ok=True)
        data = tiny_program("fp32").read_bytes()
        ours = f'"edge_llm.format":"{FORMAT}"'.encode()
        assert data.count(ours) == 1
        path.write_bytes(data.replace(ours, f'"edge_llm.format":"{version}"'.encode()))
        os.utime(path, (1000 - age, 1000 - age))
        return path

    return put


def test_ls_marks_them(store: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    store("old", 1, "1.2")
    store("new", 2)
    assert main(["ls"]) == 0
    old, new = capsys.readouterr().out.splitlines()[1:]
    assert old.endswith("format 1: export again")
    assert "export again" not in new
    assert main(["ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["programs"]
    assert [row["older_format"] for row in listed] == [1, None]


def test_a_named_one_is_refused_with_the_command(
    store: Callable[..., Path], tiny_checkpoint: Callable[..., Path]
) -> None:
    path = store("old", 1, "1.2")
    assert programs.resolve_program("old") == path
    with pytest.raises(ProgramError, match=r"format version 1\.2") as caught:
        Program.open(path)
    source = tiny_checkpoint("llama")
    assert caught.value.hint is not None
    assert f"`edge-llm export --model {source.name} --quant fp32`" in caught.value.hint


@pytest.mark.parametrize("model", ["\x1b[31m", 5, None])
def test_the_command_is_whole_where_the_recipe_names_nothing_printable(model: object) -> None:
    recipe = json.dumps({"model": model, "scheme": "fp32"})
    with pytest.raises(ProgramError) as caught:
        check_version({FORMAT_KEY: "1.2", "edge_llm.recipe": recipe})
    assert caught.value.hint is not None
    assert "`edge-llm export --model MODEL --quant fp32`" in caught.value.hint


def test_the_only_one_of_a_format_that_is_read(
    store: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store("old", 1, "1.2")
    new = store("new", 2)
    assert programs.resolve_program(None) == new
    assert "passing over old, of format 1" in capsys.readouterr().err


def test_the_default_model_is_made_anew(store: Callable[..., Path]) -> None:
    assert programs.resolve_program(None) == Path("made", "no program here yet")
    store("old", 2, "1.2")
    assert programs.resolve_program(None) == Path("made", "no program here yet")
    store(DEFAULT, 1, "1.2")
    anew = Path("made", "it is of an older format here")
    assert programs.resolve_program(None) == anew
    assert programs.resolve_program("smollm2-135m") == anew
    whole = store(DEFAULT, 1)
    assert programs.resolve_program("smollm2-135m") == programs.resolve_program(None) == whole


@pytest.mark.parametrize(
    "data", [b"", b"x" * 100, b"\xff" * 7 + b"\0{}", b"\x40" + b"\0" * 7 + b"{"]
)
def test_what_is_no_program_is_not_old(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file.edge"
    path.write_bytes(data)
    assert summary_of(path).older_format is None
    assert summary_of(tmp_path / "none.edge").older_format is None
