"""Verbs end in a line or two where something is wrong, never in a traceback."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pexpect", reason="needs pseudo-terminals")
from pty_screen import PtyScreen

Terminal = Callable[..., PtyScreen]

RED = "\x1b[31merror:\x1b[0m"


def ended(screen: PtyScreen, status: int) -> str:
    """Return what was written by a command that ends with a status."""
    assert screen.until_end() == status, screen.text
    assert "Traceback" not in screen.text
    return screen.text


@pytest.mark.parametrize(
    ("environment", "behind", "red"),
    [
        ({}, "", True),
        ({"NO_COLOR": "1"}, "", False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, "", False),
        ({"TERM": "dumb"}, "", False),
        ({}, "2>&1 | cat", False),
        ({"FORCE_COLOR": "1"}, "2>&1 | cat", True),
    ],
)
def test_the_colour_of_errors(
    environment: dict[str, str], behind: str, red: bool, terminal: Terminal
) -> None:
    with terminal("verify", "nothing", environment=environment, behind=behind) as screen:
        text = ended(screen, 0 if behind else 1)
        assert "error: no program 'nothing'" in text
        assert (RED in screen.written) is red
        assert ("\x1b" in screen.written) is red


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["help", "run"],
        ["--version"],
        ["ls"],
        ["ls", "--json"],
        ["inspect"],
        ["config"],
        ["completion", "bash"],
        ["verify"],
        ["run", "--raw", "--max-tokens", "2", "hello"],
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_disk_for_stdout(words: list[str], terminal: Terminal) -> None:
    with terminal(*words, behind="> /dev/full") as screen:
        text = ended(screen, 1)
        said = [line for line in text.splitlines() if line.startswith("error: ")]
        assert said == ["error: cannot write to standard output: No space left on device"]


@pytest.mark.parametrize(
    "words", [["--help"], ["inspect", "--weights", "--plan"], ["ls", "--all"], ["config"]]
)
def test_a_reader_that_goes_away(words: list[str], terminal: Terminal) -> None:
    with terminal(*words, behind="| true") as screen:
        text = ended(screen, 0)
        assert "error" not in text
        assert "ignored" not in text


def test_no_network(terminal: Terminal, home: Path) -> None:
    with terminal("pull", "https://127.0.0.1:9/some.edge") as screen:
        text = ended(screen, 1)
        assert "127.0.0.1 cannot be reached" in text
        assert "hint: Without network" in text
    assert [path.name for path in (home / "programs").iterdir()] == ["tiny-8da4w.edge"]


def _without_override() -> str:
    """Return what goes before a command so that it may not write where modes forbid it."""
    command = "setpriv --bounding-set=-dac_override --inh-caps=-dac_override"
    if shutil.which("setpriv") is None:
        return ""
    done = subprocess.run(
        f"d=$(mktemp -d); chmod 555 $d; {command} touch $d/x; s=$?; rm -rf $d; exit $s",
        shell=True,
        capture_output=True,
        check=False,
    )
    return command if done.returncode == 1 and b"ermission denied" in done.stderr else ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["config", "context", "128"], "cannot be written: Permission denied"),
        (["rm", "tiny-8da4w"], "ermission denied"),
        (["pull", "https://127.0.0.1:9/some.edge"], "error: "),
    ],
)
def test_no_permission(words: list[str], said: str, terminal: Terminal, home: Path) -> None:
    before = _without_override()
    folders = (home, home / "programs")
    for folder in folders:
        folder.chmod(0o555)
    try:
        if not before and _writable(home):
            pytest.skip("this user may write everywhere")
        with terminal(*words, before=before) as screen:
            assert said in ended(screen, 1)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert [path.name for path in (home / "programs").iterdir()] == ["tiny-8da4w.edge"]


def _writable(folder: Path) -> bool:
    try:
        (folder / "probe").touch()
    except PermissionError:
        return False
    (folder / "probe").unlink()
    return True


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["run", "-"], ""),
        (["bench", "--prompt-tokens", "64", "--repeat", "100000"], "the only program here"),
    ],
)
def test_ctrl_c(words: list[str], shown: str, terminal: Terminal) -> None:
    with terminal(*words, before="printf 'begun\\n'; exec") as screen:
        screen.until(lambda s: "begun" in s.text and shown in s.text)
        screen.until(_reads_or_works)
        screen.send("\x03")
        # Python itself ends by the signal, after our word, where it was at work in an `exec`.
        assert "interrupted" in ended(screen, 130)


def _reads_or_works(screen: PtyScreen) -> bool:
    """Tell whether the interpreter has got so far that Ctrl-C is answered by the verb."""
    maps = Path(f"/proc/{screen.child.pid}/maps")
    return not maps.exists() or "libedge_llm" in maps.read_text() or "json" in maps.read_text()


def test_ctrl_c_ends_a_server_well(terminal: Terminal) -> None:
    with terminal("serve", "--port", "0") as screen:
        screen.until(lambda s: "(in a browser: http://127.0.0.1:" in s.text)
        screen.send("\x03")
        ended(screen, 0)
