"""The commands in a Markdown page: blocks of shell lines, and `edge-llm ...` within text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Why the commands of a block are not run, as `<!-- not run: REASON -->` on a line before it says.
REASONS = {
    "network": "it fetches something",
    "root": "it changes the system",
    "container": "it needs a container daemon",
    "minutes": "it takes minutes",
    "elsewhere": "it is for another system, or for what only the reader has",
}
# What begins a line that is a command. Others (output, code, prose) are none.
PROGRAMS = {
    *("cat", "cd", "cmake", "cp", "curl", "docker", "echo", "edge-llm", "export", "head", "ls"),
    *("make", "mkdir", "openssl", "pip", "printf", "pytest", "python", "python3", "rm", "source"),
    *("sudo", "systemctl", "systemd-analyze", "tail", "wc"),
}
_MARK = re.compile(r"<!-- not run: (\w+) -->")
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True, slots=True)
class Line:
    """A command line of a page, continuation lines joined; ``skipped`` is the reason not to run it,
    or None."""

    page: str
    number: int
    text: str
    skipped: str | None

    def commands(self) -> list[list[str]]:
        """Return the words of each simple command, without redirections and assignments."""
        lexer = shlex.shlex(self.text.replace("\\\n", " "), posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        commands: list[list[str]] = [[]]
        words = iter(lexer)
        for word in words:
            if set(word) <= set("<>"):
                next(words, None)
            elif set(word) <= set(";&|"):
                commands.append([])
            elif commands[-1] or not _ASSIGNMENT.match(word):
                commands[-1].append(word)
        return [command for command in commands if command]


def shell_lines(path: Path) -> list[Line]:
    """Return the command lines of the blocks of a page, in their order."""
    found = []
    for reason, block in _blocks(path.read_text(encoding="utf-8").splitlines()):
        if not any(_is_command(text) for _, text in block):
            continue
        for number, text in _joined(block):
            if _is_command(text):
                found.append(Line(path.name, number, text.removeprefix("$ "), reason))
    return found


def inline_commands(path: Path) -> list[str]:
    """Return what `edge-llm ...` stands in backquotes in the text of a page."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    return [" ".join(span.split()) for span in re.findall(r"`(edge-llm [^`]+)`", text)]


def _is_command(text: str) -> bool:
    words = text.removeprefix("$ ").split()
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    return bool(words) and (words[0] in PROGRAMS or words[0].startswith(".venv/bin/"))


def _joined(block: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the lines, those that end with a backslash or in an open quote joined with the next."""
    start, whole = 0, ""
    for number, text in block:
        start, whole = (start, f"{whole}\n{text}") if whole else (number, text)
        if whole.endswith("\\") or (_is_command(whole) and _is_open(whole)):
            continue
        yield start, whole
        whole = ""
    if whole:
        yield start, whole


def _is_open(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def _blocks(lines: list[str]) -> Iterator[tuple[str | None, list[tuple[int, str]]]]:
    """Yield the blocks without a language, or of `sh`, and the indented ones: the reason not to run
    one, and its numbered lines."""
    reason: str | None = None
    block: list[tuple[int, str]] = []
    language: str | None = None  # of the fence that is open
    for number, line in enumerate([*lines, ""], 1):
        if line.lstrip().startswith("```"):
            if language is None:
                language = line.strip("` ")
                block = []
            else:
                if language in ("", "sh"):
                    yield reason, block
                language, block, reason = None, [], None
        elif language is not None or line.startswith("    "):
            block.append((number, line if language is not None else line.removeprefix("    ")))
        else:
            if block:
                yield reason, block
                block, reason = [], None
            if found := _MARK.fullmatch(line.strip()):
                reason = found[1]
            elif line.strip():
                reason = None
