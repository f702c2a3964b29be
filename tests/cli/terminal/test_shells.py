"""The Tab key in the shells that are here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edge_llm.cli.main import main

pytest.importorskip("pexpect", reason="needs pseudo-terminals")
from pty_screen import PtyScreen

# How each shell is started without anybody's settings, and what it is told first.
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], "PS1='$ '; source {script}"),
    "zsh": (["-f", "-i"], "PS1='$ '; autoload -U compinit; compinit -D; source {script}"),
    "fish": (["--no-config", "-i"], "function fish_prompt; echo '$ '; end; source {script}"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab(shell: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    assert main(["completion", shell]) == 0
    script = tmp_path / f"completion.{shell}"
    script.write_text(capsys.readouterr().out)
    command = tmp_path / "bin" / "edge-llm"
    command.parent.mkdir()
    lines = ("import sys", "from edge_llm.cli.main import main", "sys.exit(main())", "")
    command.write_text("\n".join((f"#!{sys.executable}", *lines)))
    command.chmod(0o755)
    options, begin = SHELLS[shell]
    environment = {
        "PATH": f"{command.parent}:/usr/bin:/bin",
        "EDGE_LLM_HOME": str(home),
        "HOME": str(tmp_path),
    }
    with PtyScreen([shell, *options], environment=environment) as screen:
        screen.send(begin.format(script=script) + "; echo rea''dy\r")
        screen.until(lambda s: "ready" in s.lines)
        for typed, completed in (
            ("edge-llm insp", "edge-llm inspect"),
            ("edge-llm run --temp", "edge-llm run --temperature"),
            ("edge-llm export --quant 8da8", "edge-llm export --quant 8da8w"),
            ("edge-llm verify tin", "edge-llm verify tiny-8da4w"),
        ):
            screen.send(f"{typed}\t")
            screen.until(lambda s, text=completed: any(text in line for line in s.lines))
            screen.send("\x15")  # clears the line
