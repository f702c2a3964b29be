"""Completion in a shell, asked of a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_llm.cli.completion import SHELLS
from edge_llm.cli.main import VERBS, main

SCRIPT = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
COMP_LINE="${COMP_WORDS[*]}"
COMP_POINT=${#COMP_LINE}
COMP_TYPE=9
_python_argcomplete edge-llm "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def completed(
    tmp_path: Path, tiny_program: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> Callable[..., set[str]]:
    """``completed(*words)``: what bash offers for the last of the words of a command line."""
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    home = tmp_path / "home"
    (home / "programs").mkdir(parents=True)
    (home / "programs" / "my-qwen.edge").write_bytes(tiny_program("fp32").read_bytes())
    tools = tmp_path / "bin"
    tools.mkdir()
    command = tools / "edge-llm"
    lines = ("import sys", "from edge_llm.cli.main import main", "sys.exit(main())", "")
    command.write_text("\n".join((f"#!{sys.executable}", *lines)))
    command.chmod(0o755)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a file.gguf").write_bytes(b"")
    (tmp_path / "folder" / "notes.txt").write_bytes(b"")

    def ask(*words: str) -> set[str]:
        done = subprocess.run(
            ["bash", "-c", SCRIPT, "bash", str(script), "edge-llm", *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path / "folder",
            env=os.environ | {"EDGE_LLM_HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}"},
        )
        return {line.strip() for line in done.stdout.splitlines()} - {""}

    return ask


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash(completed: Callable[..., set[str]]) -> None:
    assert completed("") >= set(VERBS)
    assert completed("ex") == {"export"}
    assert completed("run", "--temp") == {"--temperature"}
    assert completed("export", "--quant", "8da4") == {"8da4w"}
    assert completed("chat", "my") == {"my-qwen"}
    assert completed("serve", "--model", "smollm2-1") >= {"smollm2-135m", "smollm2-1.7b"}
    assert completed("bench", "a") == {"a\\ file.gguf"}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "edge-llm" in script
    assert "_ARGCOMPLETE" in script
