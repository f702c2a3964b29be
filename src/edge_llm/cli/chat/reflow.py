"""A terminal that is made narrower while a message is typed.

Most terminals break their rows anew then. prompt-toolkit goes up as many rows as it has drawn,
which are too few by then, and so leaves the first of them on the screen. Here the cursor goes up by
what they have become more.
"""

from __future__ import annotations

import os
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.layout.screen import Screen

# What terminals that break rows anew set; of others nothing is known, and nothing is done.
_MARKS = (
    "ALACRITTY_WINDOW_ID",
    "GHOSTTY_RESOURCES_DIR",
    "ITERM_SESSION_ID",
    "KITTY_WINDOW_ID",
    "KONSOLE_VERSION",
    "TMUX",
    "VTE_VERSION",
    "WEZTERM_PANE",
    "WT_SESSION",
)
_PROGRAMS = ("Apple_Terminal", "vscode")


def follow_reflow(application: Application[Any]) -> None:
    """Have an application find its first row again where its terminal breaks rows anew."""
    environment = os.environ
    known = environment.get("TERM_PROGRAM") in _PROGRAMS
    if not known and not any(name in environment for name in _MARKS):
        return
    resized = application._on_resize

    def found_again() -> None:
        screen = application.renderer.last_rendered_screen
        if screen is not None:
            application.output.cursor_up(rows_more(screen, application.output.get_size().columns))
        resized()

    application._on_resize = found_again  # type: ignore[method-assign]


def rows_more(screen: Screen, columns: int) -> int:
    """Return how many rows more what is above the cursor takes in a terminal of ``columns``."""
    cursor = next(iter(screen.cursor_positions.values()), None)
    if cursor is None or columns < 1:
        return 0
    above = sum(max(0, _width(screen, row) - 1) // columns for row in range(cursor.y))
    return above + cursor.x // columns


def _width(screen: Screen, row: int) -> int:
    cells = screen.data_buffer[row]
    return 1 + max((column for column, cell in cells.items() if cell.char.strip()), default=-1)
