"""Where ``edge-llm serve`` gets its key from."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_llm.cli.serve import KEY_VARIABLE, api_key
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
