"""The bar of stages in a real terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("pexpect", reason="needs pseudo-terminals")
from pty_screen import PtyScreen

# Reports stages; waits for a file of its name in the folder, where a "gate" is named.
SCRIPT = """
import json, sys, time
from pathlib import Path
from edge_llm.cli.console import Progress, say

progress = Progress()
try:
    for step in json.loads(sys.argv[1]):
        if isinstance(step, str):
            while not Path(sys.argv[2], step).exists():
                time.sleep(0.01)
        else:
            progress(*step)
finally:
    progress.close()
print("the end")
"""
STEPS = """[["download", 30000000, 98400000], "first", ["download", 98400000, 98400000],
["verify", 0, 1], "second", ["pack", 3, 4], "third"]"""


@pytest.fixture
def bar(tmp_path: Path) -> Iterator[Callable[..., PtyScreen]]:
    screens = []

    def start(**options: object) -> PtyScreen:
        command = [sys.executable, "-c", SCRIPT, STEPS, str(tmp_path)]
        screens.append(PtyScreen(command, **options))  # type: ignore[arg-type]
        return screens[-1]

    yield start
    for screen in screens:
        screen.child.close(force=True)


def stages(screen: PtyScreen) -> list[str]:
    return [line for line in screen.lines if re.match(r"(download|verify|pack) ", line)]


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (40, 120)])
def test_one_bar_of_one_line(
    rows: int, columns: int, bar: Callable[..., PtyScreen], tmp_path: Path
) -> None:
    screen = bar(rows=rows, columns=columns)
    screen.until_text("30.0 of 98.4 MB")
    assert len(stages(screen)) == 1
    (tmp_path / "first").touch()
    screen.until_text("verify")
    assert len(stages(screen)) == 1
    # Nothing is reported now, and the seconds go on.
    screen.until(lambda s: "0:00:02" in " ".join(s.lines))
    (tmp_path / "second").touch()
    screen.until_text("75%")
    (tmp_path / "third").touch()
    assert screen.until_end() == 0
    assert [line for line in screen.lines if line] == ["the end"]


def test_a_resize_leaves_one_bar(bar: Callable[..., PtyScreen], tmp_path: Path) -> None:
    screen = bar(rows=40, columns=120)
    screen.until_text("30.0 of 98.4 MB")
    for columns in (60, 100):
        screen.resize(24, columns)
        before = len(screen.written)
        screen.until(lambda s, begin=before: "download" in s.written[begin:])
        assert len(stages(screen)) == 1
    for gate in ("first", "second", "third"):
        (tmp_path / gate).touch()
    assert screen.until_end() == 0
    assert not stages(screen)


def test_ctrl_c_leaves_a_whole_terminal(bar: Callable[..., PtyScreen]) -> None:
    screen = bar()
    screen.until_text("30.0 of 98.4 MB")
    screen.send("\x03")
    assert screen.until_end() != 0
    hidden = screen.written.rfind("\x1b[?25l")
    assert hidden < 0 or screen.written.rfind("\x1b[?25h") > hidden  # the cursor is back


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_terminals_without_colour(
    environment: dict[str, str], bar: Callable[..., PtyScreen], tmp_path: Path
) -> None:
    for gate in ("first", "second", "third"):
        (tmp_path / gate).touch()
    screen = bar(environment=environment)
    assert screen.until_end() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", screen.written)
    assert ("\x1b" in screen.written) is ("TERM" not in environment)
