"""Settings: the environment before the file, faults by name, and changing one of many lines."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from edge_llm.catalogue.settings import (
    SETTINGS,
    change,
    config_path,
    read_settings,
    setting,
    variable,
)
from edge_llm.errors import ConfigError


def write(text: str) -> Path:
    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_where_the_file_is(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_path() == home / "config.toml"
    monkeypatch.delenv("EDGE_LLM_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_path() == tmp_path / "edge-llm" / "config.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_path() == Path.home() / ".config" / "edge-llm" / "config.toml"


def test_nothing_is_set() -> None:
    assert read_settings() == {}
    assert setting("threads") is None


def test_the_environment_comes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write('threads = 3\ncontext = 512\ndefault = "mine"\n')
    monkeypatch.setenv("EDGE_LLM_THREADS", "2")
    found = read_settings()
    assert {name: (item.value, item.origin) for name, item in found.items()} == {
        "threads": (2, "EDGE_LLM_THREADS"),
        "context": (512, str(path)),
        "default": ("mine", str(path)),
    }
    monkeypatch.setenv("EDGE_LLM_THREADS", "")  # as good as unset
    assert setting("threads") == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("treads = 3", "unknown setting 'treads', expected one of: default, threads"),
        ("threads = 'many'", "threads: got 'many', expected a whole number from 0 to 1024"),
        ("threads = -1", "expected a whole number"),
        ("threads = true", "got True, expected a text or a whole number"),
        ("threads = 1.5", "got 1.5, expected a text or a whole number"),
        ("port = 70000", "expected a whole number from 0 to 65535"),
        ("kv_dtype = 'f64'", "got 'f64', expected one of f32, f16, i8"),
        ("[threads]", "got {}, expected"),
        ("threads", "is not TOML"),
        ("\ufeffthreads = 1", "is not TOML"),
    ],
)
def test_faults_of_the_file_are_named(text: str, said: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        read_settings()
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError):  # and it is not written over
        change("context", "5")
    assert path.read_text(encoding="utf-8") == text


def test_faults_of_the_environment_name_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_LLM_PORT", "http")
    with pytest.raises(ConfigError, match="EDGE_LLM_PORT: got 'http', expected a whole number"):
        read_settings()


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_LLM_API_KEY", "s3cret\x07")
    with pytest.raises(ConfigError) as caught:
        read_settings()
    assert "s3cret" not in str(caught.value)


def test_one_line_changes_and_the_rest_stays() -> None:
    path = write("# mine\nthreads = 3 # two are busy\n")
    assert change("default", 'a "quoted" naïve \\ name') == path
    assert change("threads", "auto") == path
    assert path.read_text(encoding="utf-8").startswith("# mine\n")
    assert setting("default") == 'a "quoted" naïve \\ name'
    assert setting("threads") == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    change("threads", None)
    change("default", None)
    assert read_settings() == {}
    assert path.read_text(encoding="utf-8") == "# mine\n"


def test_changing_what_is_no_setting() -> None:
    for value in ("1", None):
        with pytest.raises(ConfigError, match="unknown setting 'treads'"):
            change("treads", value)
    with pytest.raises(ConfigError, match="threads: got 'x'"):
        change("threads", "x")
    assert not config_path().exists()


def test_every_setting_has_a_variable_of_its_own() -> None:
    assert len({variable(name) for name in SETTINGS}) == len(SETTINGS)
    assert variable("kv_dtype") == "EDGE_LLM_KV_DTYPE"


@pytest.mark.parametrize("key", ["port", '"port"', "'port'", " port\t"])
def test_a_line_is_found_however_its_key_is_written(key: str) -> None:
    path = write(f"threads = 1\r\n{key}=80\r\n")
    change("port", "81")
    assert path.read_text(encoding="utf-8").count("port") == 1
    assert (setting("threads"), setting("port")) == (1, 81)


def test_characters_beyond_16_bits() -> None:
    change("default", "🙂 \u2028".strip())
    assert setting("default") == "🙂"


def test_what_takes_several_lines_is_not_broken() -> None:
    path = write('default = """\\\n  mine"""\n')
    with pytest.raises(ConfigError, match="sets default over several lines"):
        change("default", "other")
    assert setting("default") == "mine"
    change("port", "1")
    assert path.read_text(encoding="utf-8").endswith('"""\nport = 1\n')


@pytest.mark.parametrize("digits", ["9" * 5000, "0x" + "9" * 5000])
def test_numbers_without_end(digits: str) -> None:
    write(f"port = {digits}")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        read_settings()


def test_a_key_of_a_wrong_type_is_not_shown() -> None:
    write("api_key = ['s3cret']")
    with pytest.raises(ConfigError, match="api_key: got a value") as caught:
        read_settings()
    assert "s3cret" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a permission there")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    kept = tmp_path / "kept.toml"
    kept.write_text("port = 1\n", encoding="utf-8")
    path = write("")
    path.unlink()
    path.symlink_to(kept)
    change("threads", "2")
    assert path.is_symlink()
    assert kept.read_text(encoding="utf-8") == "port = 1\nthreads = 2\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes have names there")
def test_a_pipe_is_not_waited_for() -> None:
    path = write("")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is no file"):
        read_settings()
