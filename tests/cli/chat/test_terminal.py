"""`edge-llm chat` at a terminal: what is typed, pasted, stopped and resized."""

from __future__ import annotations

import json
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pexpect", reason="needs pseudo-terminals")
from pty_screen import PtyScreen

SCRIPT = Path(__file__).resolve().parents[2] / "scripted_chat.py"
SIZES = [(24, 80), (40, 120)]

Chat = Callable[..., PtyScreen]


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    """``chat(answers, rows=24, columns=80, environment={}, **options)``: a scripted conversation
    whose first prompt is on the screen."""

    def start(
        answers: list[list[str]],
        rows: int = 24,
        columns: int = 80,
        environment: dict[str, str] | None = None,
        **options: bool,
    ) -> PtyScreen:
        script = tmp_path / "script.json"
        script.write_text(json.dumps({"answers": answers, "options": options}))
        screen = PtyScreen(
            [sys.executable, str(SCRIPT), str(script)],
            rows=rows,
            columns=columns,
            environment={"XDG_STATE_HOME": str(tmp_path / "home"), **(environment or {})},
        )
        screen.until(at_prompt)
        return screen

    return start


def at_prompt(screen: PtyScreen) -> bool:
    row = screen.lines[screen.screen.cursor.y]
    return row == ">" and screen.screen.cursor.x == 2


def answered(screen: PtyScreen, count: int = 1) -> None:
    screen.until(lambda s: at_prompt(s) and s.text.count("DONE") >= count)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_what_is_pasted_is_one_message(chat: Chat, tmp_path: Path, rows: int, columns: int) -> None:
    with chat([["DONE"]], rows, columns) as screen:
        screen.send("\x1b[200~one\ntwo\n\nfour\x1b[201~")
        screen.until_text(". four")
        screen.send("\r")
        answered(screen)
        screen.send(f"/save {tmp_path / 'talk.json'}\r")
        screen.until_text("2 messages")
    messages = json.loads((tmp_path / "talk.json").read_text())
    assert messages[0]["content"] == "one\ntwo\n\nfour"


def test_lines_by_alt_enter_and_by_quotes(chat: Chat, tmp_path: Path) -> None:
    with chat([["DONE"], ["DONE"]]) as screen:
        screen.send("a\x1b\rb\r")
        answered(screen)
        screen.send('"""\rc\rd"""\r')
        answered(screen, 2)
        screen.send(f"/save {tmp_path / 'talk.json'}\r")
        screen.until_text("4 messages")
    messages = json.loads((tmp_path / "talk.json").read_text())
    assert [message["content"] for message in messages[::2]] == ["a\nb", "c\nd"]


def test_history_goes_on_in_the_next_conversation(chat: Chat, tmp_path: Path) -> None:
    with chat([["DONE"]]) as screen:
        screen.send("first\x1b\rsecond\r")
        answered(screen)
        screen.send("\x04")
        assert screen.until_end() == 0
    kept = tmp_path / "home" / "edge-llm" / "chat-history.jsonl"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    with chat([["DONE"]]) as screen:
        screen.send("\x1b[A")
        screen.until_text(". second")


def test_a_home_that_is_a_file_ends_no_conversation(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with chat([["DONE"]]) as screen:
        screen.send("hello\r")
        answered(screen)
        assert "is not kept" in screen.text


def test_completion(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "some talk.json").write_text("[]")
    with chat([]) as screen:
        screen.send("/sys")
        screen.until_text("set the system message, start over")
        screen.send("\x03")
        screen.until(at_prompt)
        screen.send("/set temp\t")
        screen.until_text("> /set temperature")
        screen.send("\x03")
        screen.until(at_prompt)
        screen.send(f"/load {tmp_path}/so\t")
        screen.until(lambda s: "some talk.json" in "".join(s.lines))
        screen.send("\r")
        screen.until(lambda s: "0 messages" in "".join(s.lines))


def test_ctrl_c_clears_the_line_and_ctrl_d_leaves(chat: Chat) -> None:
    with chat([["DONE"]]) as screen:
        screen.send("half a mess\x03")
        screen.until_text("(/bye or Ctrl-D leaves)")
        screen.until(at_prompt)
        screen.send("\x04")
        assert screen.until_end() == 0


def test_ctrl_c_stops_an_answer(chat: Chat) -> None:
    with chat([["It goes on ", "<gate>", "never"], ["DONE"]]) as screen:
        screen.send("hello\r")
        screen.until_text("It goes on")
        screen.send("typed ahead")  # is not shown in the midst of the answer, and not lost
        screen.send("\x03")
        screen.until_text("(stopped)")
        screen.until(lambda s: s.lines[s.screen.cursor.y].startswith(">"))
        assert "never" not in screen.text


def test_what_is_typed_during_an_answer_is_the_next_message(chat: Chat, tmp_path: Path) -> None:
    with chat([["one ", "<gate>", "two DONE"]]) as screen:
        screen.send("hello\r")
        screen.until_text("one")
        screen.send("typed ahead")
        (tmp_path / "gate").touch()
        screen.until_text("> typed ahead")
        assert "one two DONE" in screen.lines
        assert screen.text.count("typed ahead") == 1


LONG = [f"word{n} " + ("\n\n" if n % 40 == 39 else "") for n in range(800)]


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_an_answer_longer_than_the_screen_is_whole_in_the_scrollback(
    chat: Chat, rows: int, columns: int
) -> None:
    code = "```python\n" + "".join(f"x{n} = {n}\n" for n in range(60)) + "```\n"
    with chat([[*LONG, "\n\n", code, "\n**DONE**"]], rows, columns) as screen:
        screen.send("hello\r")
        answered(screen)
        text = screen.scrollback
    words = " ".join(text).split()
    assert [word for word in words if word.startswith("word")] == [f"word{n}" for n in range(800)]
    start = text.index("```python")
    assert text[start + 1 : start + 61] == [f"x{n} = {n}" for n in range(60)]
    assert "DONE" in text  # without its marks


def test_a_resize_in_the_midst_of_an_answer(chat: Chat, tmp_path: Path) -> None:
    with chat([[*LONG[:400], "<gate>", *LONG[400:], "\n\nDONE"]], 40, 120) as screen:
        screen.send("hello\r")
        screen.until(lambda s: "word399" in s.text)
        screen.resize(24, 50)
        (tmp_path / "gate").touch()
        answered(screen)
        answer = screen.text[screen.text.index("word0") :]
    words = [word for word in answer.split() if word.startswith("word")]
    assert words == [f"word{n}" for n in range(800)]
    later = answer[answer.index("word420") :].splitlines()[1:]
    assert max(map(len, later)) <= 50
    before = answer[: answer.index("word390")].splitlines()
    assert max(map(len, before)) > 100


def test_a_dumb_terminal_is_asked_plainly(chat: Chat) -> None:
    with chat([["**DONE**"], ["again"]], environment={"TERM": "dumb"}) as screen:
        screen.send("hello\n")
        screen.until_text("**DONE**")
        screen.until(at_prompt)
        assert "\x1b" not in screen.written
        screen.send('"""\none\n"""\n')
        screen.until_text("again")
        screen.send("\x04")
        assert screen.until_end() == 0


def test_plain_answers_at_a_terminal(chat: Chat) -> None:
    with chat([["(hm)", "**DONE**"]], plain=True) as screen:
        screen.send("hello\r")
        screen.until_text("**DONE**")
        assert "(thinking)" in screen.lines


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_a_message_is_drawn_once_when_the_terminal_gets_narrower(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"answers": []}))
    words = "a message that does not fit one row once the terminal is narrower than its words"

    def tmux(*command: str) -> str:
        server = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]
        return subprocess.run(
            [*server, *command], capture_output=True, text=True, check=True
        ).stdout

    def shows(text: str) -> list[str]:
        for _ in range(600):
            rows = tmux("capture-pane", "-p").splitlines()
            if text in "".join(row.strip() for row in rows).replace(" ", ""):
                return rows
            time.sleep(0.05)
        raise AssertionError("\n".join(rows))

    chat = shlex.join([sys.executable, str(SCRIPT), str(script)])
    tmux("new-session", "-d", "-x", "100", "-y", "20", f"XDG_STATE_HOME={tmp_path} {chat}")
    try:
        tmux("set", "-g", "window-size", "manual")
        shows("leaves>")
        tmux("send-keys", words)
        shows(words.replace(" ", ""))
        for columns in (50, 30, 70):
            tmux("resize-window", "-x", str(columns), "-y", "20")
            tmux("send-keys", "!")
            words += "!"
            rows = shows(words.replace(" ", ""))
            assert sum(row.count("a message") for row in rows) == 1
    finally:
        tmux("kill-server")
