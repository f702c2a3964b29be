"""Where ``edge-llm serve`` gets its key from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_llm.cli.main import build_parser
from edge_llm.cli.serve import KEY_VARIABLE, api_key, programs_in
from edge_llm.errors import ConfigError


def test_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    file = tmp_path / "key"
    file.write_text("  from-file \nsecond line\n")
    assert api_key(None, None) is None
    assert api_key("", None) == ""  # which is refused later on
    monkeypatch.setenv(KEY_VARIABLE, "from-environment")
    assert api_key(None, None) == "from-environment"
    assert api_key("given", None) == "given"
    assert api_key(None, file) == "from-file"


@pytest.mark.parametrize("content", [b"", b"\nkey\n", b"\xff\xfe"])
def test_files_without_a_key(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="key"):
        api_key(None, file)
    with pytest.raises(ConfigError, match="cannot be read"):
        api_key(None, tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "count"), [("512", 512), ("8GB", 8 * 10**9), ("1.5 mB", 1_500_000), ("2k", 2000)]
)
def test_sizes(text: str, count: int) -> None:
    arguments = build_parser("serve").parse_args(["serve", "--memory", text, "--kv-budget", text])
    assert (arguments.memory, arguments.kv_budget) == (count, count)


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "8 gigabytes"])
def test_what_is_no_size(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser("serve").parse_args(["serve", f"--memory={text}"])
    assert "expected bytes, like 8GB" in capsys.readouterr().err


def test_a_folder_of_programs(
    tmp_path: Path, tiny_program: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_program().read_bytes()
    for name in ("b", "a"):
        (tmp_path / f"{name}.edge").write_bytes(data)
    (tmp_path / "cut.edge").write_bytes(data[:-1])
    (tmp_path / "notes.txt").write_text("no program")
    assert [path.stem for path in programs_in(str(tmp_path))] == ["a", "b"]
    assert "passing over cut, which is damaged" in capsys.readouterr().err
    assert programs_in(str(tmp_path / "a.edge")) == []
    (tmp_path / "config.json").write_text("{}")  # a checkpoint
    assert programs_in(str(tmp_path)) == []


def test_a_bound_of_no_folder_is_refused() -> None:
    arguments = build_parser().parse_args(["serve", "any.edge", "--sessions-size", "1GB"])
    with pytest.raises(ConfigError, match="--sessions-size bounds a folder"):
        arguments.run(arguments)
