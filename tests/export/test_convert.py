"""A checkpoint where a program is expected: made once, kept, and made again when it has changed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.cli.main import main
from edge_llm.export import convert
from edge_llm.export.convert import converted
from edge_llm.program.file import Program

Tiny = Callable[..., Path]
Gguf = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    return tmp_path / "home"


def test_it_is_made_once(
    tiny_checkpoint: Tiny, make_gguf: Gguf, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_gguf(tiny_checkpoint("llama"))
    path = converted(str(source))
    assert path == home / "programs" / f"{source.stem}-8da4w.edge"
    with Program.open(path) as program:
        assert program.golden is not None

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(convert, "make_program", never)
    assert converted(str(source)) == path
    os.utime(source, (1, 1))
    with pytest.raises(AssertionError, match="made again"):
        converted(str(source))


def test_a_program_that_is_gone_is_made_again(tiny_checkpoint: Tiny) -> None:
    source = str(tiny_checkpoint("qwen2"))
    path = converted(source)
    path.unlink()
    assert converted(source) == path
    assert path.is_file()


def test_files_of_one_name_do_not_take_each_others_place(
    tiny_checkpoint: Tiny, make_gguf: Gguf, tmp_path: Path
) -> None:
    data = make_gguf(tiny_checkpoint("llama")).read_bytes()
    sources = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        sources.append(tmp_path / folder / "model.gguf")
        sources[-1].write_bytes(data)
    paths = [converted(str(source)) for source in sources]
    assert len(set(paths)) == 2
    assert [converted(str(source)) for source in sources] == paths


@pytest.mark.parametrize("index", ["", "[]", '{"x": 5}', '{"x": "../../y"}', "\0"])
def test_a_damaged_index_costs_one_export(index: str, tiny_checkpoint: Tiny, home: Path) -> None:
    (home / "programs").mkdir(parents=True)
    (home / "programs" / ".made.json").write_text(index)
    source = str(tiny_checkpoint("llama"))
    assert converted(source).is_file()
    assert converted(source).is_file()


def test_run_takes_a_checkpoint_and_loads_no_pytorch(
    tiny_checkpoint: Tiny, make_gguf: Gguf, home: Path
) -> None:
    source = make_gguf(tiny_checkpoint("llama"))
    code = (
        "import sys; from edge_llm.cli.main import main; "
        f"status = main(['run', '-m', {str(source)!r}, '--max-tokens', '3', 'hi']); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
    assert len(list((home / "programs").glob("*.edge"))) == 1


@pytest.mark.parametrize("verb", [["run", "-m"], ["inspect"]])
def test_what_was_made_is_said(
    verb: list[str],
    tiny_checkpoint: Tiny,
    tmp_path: Path,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = str(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "tuned"))
    behind = ["hi", "--max-tokens", "1"] if verb[0] == "run" else []
    assert main([*verb, source, *behind]) == 0
    assert f"made tuned-8da4w of {source}\n" in capsys.readouterr().err
    assert main([*verb, source, *behind]) == 0
    assert "made " not in capsys.readouterr().err
    shutil.copytree(tiny_checkpoint("qwen2"), source, dirs_exist_ok=True)
    assert main([*verb, source, *behind]) == 0
    said = capsys.readouterr().err
    (second,) = {path.stem for path in (home / "programs").glob("*.edge")} - {"tuned-8da4w"}
    assert f"made {second} of {source}; tuned-8da4w, of other files, is still here\n" in said


def test_a_checkpoint_that_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\0" * 20)
    assert main(["run", "-m", str(bad), "hi"]) == 1
    assert "bad.gguf" in capsys.readouterr().err


def test_another_program_of_that_name_is_not_taken_for_it(tiny_checkpoint: Tiny) -> None:
    source, other = str(tiny_checkpoint("llama")), str(tiny_checkpoint("qwen2"))
    path, second = converted(source), converted(other)
    path.write_bytes(second.read_bytes())  # as `edge-llm export` of another checkpoint does
    again = converted(source)
    with Program.open(again) as program:
        assert program.documents.model.family == "llama"
    assert converted(source) == again
    assert path.read_bytes() == second.read_bytes()


def test_a_program_that_was_cut_is_made_again(tiny_checkpoint: Tiny) -> None:
    source = str(tiny_checkpoint("llama"))
    path = converted(source)
    os.truncate(path, 5000)
    again = converted(source)
    with Program.open(again) as program:
        program.verify_digests()


def test_one_of_that_name_that_comes_meanwhile_stays(
    tiny_checkpoint: Tiny, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_checkpoint("llama")
    make = convert.make_program

    def made(*arguments: Any, **options: Any) -> Any:
        outcome = make(*arguments, **options)
        (home / "programs" / f"{source.stem}-8da4w.edge").write_bytes(b"another's")
        return outcome

    monkeypatch.setattr(convert, "make_program", made)
    with Program.open(converted(str(source))) as program:
        assert program.documents.model.family == "llama"
    assert (home / "programs" / f"{source.stem}-8da4w.edge").read_bytes() == b"another's"


def test_every_part_of_a_file_in_parts_counts(tmp_path: Path) -> None:
    first = tmp_path / "model-00001-of-00002.gguf"
    for name in (first.name, "model-00002-of-00002.gguf", "other-00001-of-00002.gguf"):
        (tmp_path / name).write_bytes(b"")
    files = convert._files(first)
    assert sorted(file.name for file in files) == [first.name, "model-00002-of-00002.gguf"]
