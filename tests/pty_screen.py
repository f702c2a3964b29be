"""A program in a pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Sequence

import pexpect
import pyte

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


def _as_a_shell_starts_it() -> None:
    """Let Ctrl-C act, also where the tests run in the background of a script, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class PtyScreen:
    """Runs a command in a terminal of ``rows`` by ``columns`` characters. Keys are sent, and the
    screen is looked at until it shows what is expected; nothing is measured by the clock."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        rows: int = 24,
        columns: int = 80,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=10000, ratio=0.5)
        self._stream = pyte.Stream(self.screen)
        inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.child = pexpect.spawn(
            command[0],
            list(command[1:]),
            dimensions=(rows, columns),
            env={**inherited, "TERM": "xterm-256color", **(environment or {})},
            encoding="utf-8",
            codec_errors="replace",
            preexec_fn=_as_a_shell_starts_it,
        )
        self.written = ""

    def __enter__(self) -> PtyScreen:
        return self

    def __exit__(self, *error: object) -> None:
        self.child.close(force=True)

    @property
    def lines(self) -> list[str]:
        """The rows of the screen, without the spaces at their ends."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def scrollback(self) -> list[str]:
        """Return the lines that have scrolled out, and the screen's."""
        columns = range(self.screen.columns)
        top = ["".join(row[i].data for i in columns).rstrip() for row in self.screen.history.top]
        return [*top, *self.lines]

    @property
    def text(self) -> str:
        """All that was written, without control sequences."""
        return _CONTROLS.sub("", self.written)

    def send(self, keys: str) -> None:
        """Press keys."""
        self.child.send(keys)

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size."""
        lost = max(0, self.screen.lines - rows)  # above, where the cursor does not follow by itself
        self.screen.resize(rows, columns)
        self.screen.cursor.y = max(0, self.screen.cursor.y - lost)
        self.child.setwinsize(rows, columns)

    def until(self, shown: Callable[[PtyScreen], bool], patience: float = 60) -> None:
        """Wait until the screen shows something.

        Raises:
            AssertionError: it did not, or the program has ended without it.
        """
        deadline = time.monotonic() + patience
        while not shown(self):
            alive = self._take()
            if shown(self):
                return
            assert alive, "ended with:\n" + "\n".join(self.scrollback)
            assert time.monotonic() < deadline, "still:\n" + "\n".join(self.lines)

    def until_text(self, text: str) -> None:
        """Wait until the screen has a text, which may go over a row's end as wrapped words do."""
        self.until(
            lambda screen: (
                any(text in line for line in screen.lines)
                or text in " ".join(line.strip() for line in screen.lines)
            )
        )

    def until_end(self, patience: float = 120) -> int:
        """Wait for the end of the program. Return its exit status as shells do: 128 and a signal's
        number for the end by that signal.

        Raises:
            AssertionError: it has not ended in that many seconds.
        """
        deadline = time.monotonic() + patience
        while self._take():
            assert time.monotonic() < deadline, "goes on:\n" + "\n".join(self.lines)
        self.child.wait()
        if self.child.exitstatus is not None:
            return int(self.child.exitstatus)
        return 128 + int(self.child.signalstatus)

    def _take(self) -> bool:
        try:
            new = self.child.read_nonblocking(65536, timeout=0.2)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.written += new
        self._stream.feed(new)
        return True
