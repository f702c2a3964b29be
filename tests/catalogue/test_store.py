"""The folders of the store, programs, resolve and remove."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_llm import catalogue
from edge_llm.errors import AmbiguousNameError, SourceError


@pytest.fixture
def programs(home: Path) -> Path:
    """Three programs, the oldest first."""
    folder = home / "programs"
    folder.mkdir(parents=True)
    names = ("smollm2-135m-fp32", "mine", "smollm2-135m-8da4w")
    for age, name in enumerate(names):
        file = folder / f"{name}.edge"
        file.write_bytes(b"x" * (age + 1))
        os.utime(file, (1000 + age, 1000 + age))
    (folder / "notes.txt").write_text("")
    return folder


def hint_of(error: SourceError) -> str:
    assert error.hint is not None
    return error.hint


def test_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalogue.home() == home
    assert catalogue.models_dir() == home / "models"
    monkeypatch.delenv("EDGE_LLM_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert catalogue.home() == Path("/caches/edge-llm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert catalogue.home() == Path.home() / ".cache" / "edge-llm"
    monkeypatch.setattr("sys.platform", "darwin")
    assert catalogue.home() == Path.home() / "Library" / "Caches" / "edge-llm"


def test_empty_store() -> None:
    assert catalogue.list_programs() == []


def test_programs_newest_first(programs: Path) -> None:
    listed = catalogue.list_programs()
    assert [program.name for program in listed] == [
        "smollm2-135m-8da4w",
        "mine",
        "smollm2-135m-fp32",
    ]
    assert (listed[0].bytes, listed[0].modified) == (3, 1002.0)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mine", "mine.edge"),
        ("mine.edge", "mine.edge"),
        ("smollm2-135m-fp32", "smollm2-135m-fp32.edge"),
    ],
)
def test_find_program(programs: Path, name: str, file: str) -> None:
    assert catalogue.find_program(name) == programs / file
    assert catalogue.find_program(str(programs / file)) == programs / file


def test_no_such_program(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no program 'zzz'") as caught:
        catalogue.find_program("zzz")
    assert "smollm2-135m-8da4w, mine" in hint_of(caught.value)
    with pytest.raises(SourceError, match=r"no program of llama3\.2-1b yet") as caught:
        catalogue.find_program("llama3.2-1b")
    assert "`edge-llm export --model llama3.2-1b`" in hint_of(caught.value)
    with pytest.raises(SourceError, match="is a folder, not a program") as caught:
        catalogue.find_program(str(tmp_path))
    assert f"edge-llm export --model {tmp_path}" in hint_of(caught.value)


def test_resolve_a_path(tmp_path: Path) -> None:
    assert catalogue.resolve(str(tmp_path)) == tmp_path
    for missing in ("./nothing", str(tmp_path / "nothing"), "nothing.gguf"):
        with pytest.raises(SourceError, match="no such file or folder"):
            catalogue.resolve(missing)


def test_resolve_and_remove_a_fetched_package(home: Path) -> None:
    with pytest.raises(SourceError, match="smollm2-135m is not on this machine yet") as caught:
        catalogue.resolve("smollm2-135m")
    assert "`edge-llm pull smollm2-135m`" in hint_of(caught.value)
    with pytest.raises(SourceError, match="smollm2-135m is not on this machine"):
        catalogue.remove("smollm2-135m")

    folder = home / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    file = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.write_bytes(b"GGUF")
    assert catalogue.locate("smollm2-135m") == file
    with pytest.raises(SourceError, match=r"is damaged: digest [0-9a-f]{16}… of 4 bytes") as caught:
        catalogue.resolve("smollm2-135m")
    assert hint_of(caught.value) == "`edge-llm pull smollm2-135m` fetches it again."
    assert catalogue.remove("smollm2-135m").paths == [folder]
    assert not folder.exists()


def test_remove_a_program(programs: Path) -> None:
    assert catalogue.remove("mine").paths == [programs / "mine.edge"]
    assert catalogue.remove("smollm2-135m-fp32.edge").paths == [programs / "smollm2-135m-fp32.edge"]
    assert [program.name for program in catalogue.list_programs()] == ["smollm2-135m-8da4w"]


def test_remove_takes_what_a_program_is_called(programs: Path) -> None:
    (programs / "tuned-8da4w.edge").write_bytes(b"x")
    assert catalogue.remove("tuned").paths == [programs / "tuned-8da4w.edge"]
    assert catalogue.remove(str(programs / "mine.edge")).paths == [programs / "mine.edge"]
    for scheme in ("8da4w", "fp32"):
        (programs / f"tuned-{scheme}.edge").write_bytes(b"x")
    with pytest.raises(AmbiguousNameError, match="several programs: tuned-"):
        catalogue.remove("tuned")
    assert len(catalogue.list_programs()) == 4


def test_what_lies_elsewhere_is_not_removed(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.edge").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for name in ("mine.edge", str(tmp_path / "mine.edge"), "folder"):
        with pytest.raises(SourceError, match="lies outside the store"):
            catalogue.remove(name)
    assert (tmp_path / "mine.edge").exists()
    assert catalogue.remove("mine").paths == [programs / "mine.edge"]


def test_remove_nothing(programs: Path) -> None:
    with pytest.raises(SourceError, match="no program or model is called"):
        catalogue.remove("../programs/mine")
    with pytest.raises(SourceError, match=r"llama3\.2-1b is not on this machine"):
        catalogue.remove("llama3.2-1b")


def test_a_store_that_cannot_be_read(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("os.listdir", refuse)
        with pytest.raises(SourceError, match=r"cannot read the folder .*: Permission denied"):
            catalogue.find_program("mine")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", refuse)
        with pytest.raises(SourceError, match=r"cannot read .*: Permission denied"):
            catalogue.locate("smollm2-135m")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "programs").write_text("")
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "other"))
    with pytest.raises(SourceError, match="Not a directory") as caught:
        catalogue.list_programs()
    assert "EDGE_LLM_HOME" in hint_of(caught.value)


def test_what_a_removal_gives(home: Path, programs: Path) -> None:
    assert catalogue.remove("mine").bytes == 2
    folder = home / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"x" * 500)
    assert catalogue.remove("smollm2-135m").bytes == 500
    with pytest.raises(SourceError, match="smollm2-135m is not on this machine") as caught:
        catalogue.remove("smollm2-135m")
    assert "smollm2-135m-8da4w" in hint_of(caught.value)
    with pytest.raises(SourceError, match="no program or model is called 'smollm2-135m-8da5w'"):
        catalogue.remove("smollm2-135m-8da5w")


def test_only_files_are_programs(programs: Path) -> None:
    (programs / "folder.edge").mkdir()
    (programs / "nowhere.edge").symlink_to("/nowhere")
    (programs / "loop.edge").symlink_to("loop.edge")
    assert len(catalogue.list_programs()) == 3
    with pytest.raises(SourceError):
        catalogue.remove("folder")


@pytest.mark.parametrize("path", ["a" * 5000, "~nobody-of-this-name/x"])
def test_what_cannot_be_a_path(programs: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for look_up in (catalogue.find_program, catalogue.locate):
        with pytest.raises(SourceError, match="cannot be a path") as caught:
            look_up(path)
        assert len(str(caught.value)) < 200
    monkeypatch.setenv("EDGE_LLM_HOME", path)
    with pytest.raises(SourceError, match="cannot be a path"):
        catalogue.home()
