"""Markdown that is shown while it comes: all of it, once, whatever the pieces."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from edge_llm.cli.chat.rendering.markdown import Markdown
from edge_llm.cli.chat.rendering.writers import PlainWriter, RichWriter, visible

ROOT = Path(__file__).resolve().parents[3]
STATUS = r"(?:\x1b\[2m)?(?:\(a table[^)]*\)|\u2026)(?:\x1b\[0m)?"
CONTROLS = re.compile(rf"\r?{STATUS}(?:\r\x1b\[2K)?|\r\x1b\[2K|\x1b\[[0-9;]*m")


def console(width: int = 60, *, colour: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    system = "standard" if colour else None
    made = Console(
        file=file, width=width, force_terminal=True, color_system=system, highlight=False
    )
    return made, file


def shown(pieces: list[str] | str, width: int = 60, *, colour: bool = False) -> str:
    made, file = console(width, colour=colour)
    markdown = Markdown(made)
    for piece in pieces:
        markdown.write(piece)
    markdown.end()
    return file.getvalue() if colour else CONTROLS.sub("", file.getvalue())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A title", "A title\n"),
        ("some **bold**, *thin* and `code`", "some bold, thin and code\n"),
        ("a [link](http://x.y) and <http://x.y>", "a link (http://x.y) and http://x.y\n"),
        ("- one\n  - two\n3. three", "\u2022 one\n  \u2022 two\n3. three\n"),
        ("> said\n>> twice", "\u258c said\n\u258c \u258c twice\n"),
        ("\n\none\n\n\n\ntwo\n\n", "one\n\ntwo\n"),
        ("a poem\nin lines", "a poem\nin lines\n"),
        ("List<int> and <b>tags</b> &lt;", "List<int> and <b>tags</b> <\n"),
        (r"\(x^2\) and \[y\] \*", r"\(x^2\) and \[y\] *" + "\n"),
        ("[1]: http://x.y", "[1]: http://x.y\n"),
        ("text\n===", "text\n===\n"),
        ("a | b, or c", "a | b, or c\n"),
        ("2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name\n"),
        ("**never closed", "**never closed\n"),
        ("```py\nx = 1\n\n  y\n```\nz", "```py\nx = 1\n\n  y\n```\nz\n"),
        ("```\n**x** | y", "```\n**x** | y\n"),
        ("say:\n\n    code  **x**\n", "say:\n\n    code  **x**\n"),
        ("    :smile: [red]x[/red]", "    :smile: [red]x[/red]\n"),
        ("```:cat:\n:dog: [b]\n```", "```:cat:\n:dog: [b]\n```\n"),
        ("so :smile: [red]x[/red] it is", "so :smile: [red]x[/red] it is\n"),
    ],
)
def test_constructs(text: str, expected: str) -> None:
    assert shown([text]) == expected
    assert shown(text) == expected  # character by character


def test_styles() -> None:
    assert shown("**b** `c`", colour=True) == "\x1b[1mb\x1b[0m \x1b[36mc\x1b[0m\n"


def test_a_table_is_drawn_when_it_is_whole() -> None:
    text = "| a | b |\n|---|--:|\n| **1** | 2 |\n| x\\|y | long |\n\nend"
    drawn = shown(text)
    assert "\u2502 x|y \u2502 long \u2502" in drawn
    assert "\u2502 1   \u2502    2 \u2502" in drawn
    assert drawn.endswith("\n\nend\n")
    assert drawn.count("long") == 1


@pytest.mark.parametrize("text", ["| a |\n|---|\n| 1 | lost? |\n", "| a | b\n|---|\n"])
def test_a_table_that_would_lose_cells_is_shown_as_written(text: str) -> None:
    assert shown(text) == text


def test_a_table_that_is_too_wide_is_shown_as_written() -> None:
    text = "|" + "a|" * 12 + "\n|" + "-|" * 12 + "\n|" + "b|" * 12 + "\n"
    assert shown(text, 40) == text
    assert "\u2502 b " in shown(text, 80)


def test_words_are_shown_once_they_are_settled() -> None:
    made, file = console()
    markdown = Markdown(made)
    for piece, seen in [
        ("He", ""),
        ("llo the", "Hello"),
        ("re, **bold", "Hello there,"),
        (" words** and", "Hello there, bold words"),
        (" \u6f22\u5b57", "Hello there, bold words and \u6f22\u5b57"),
    ]:
        markdown.write(piece)
        assert CONTROLS.sub("", file.getvalue()).rstrip() == seen


def test_a_mark_that_nothing_closes_holds_no_answer_back() -> None:
    made, file = console()
    markdown = Markdown(made)
    markdown.write("a `tick " + "and more words " * 30)
    assert len(file.getvalue()) > 200
    markdown.write("`")
    markdown.end()
    squeezed = "".join(CONTROLS.sub("", file.getvalue()).split())
    assert squeezed == "a`tick" + "andmorewords" * 30 + "`"


def test_rows_are_no_wider_than_the_terminal_and_words_stay_whole() -> None:
    words = ["word" * (1 + n % 4) for n in range(100)]
    for head in ("", "- ", "> "):
        rows = shown(head + " ".join(words), 31).splitlines()
        assert all(cell_len(row) <= 31 for row in rows)
        assert [word for row in rows for word in row.split() if word[0] == "w"] == words
    assert all(cell_len(row) <= 31 for row in shown("\u6f22\u5b57" * 90, 31).splitlines())
    long = "https://x.y/" + "a" * 100
    assert long in shown(f"see {long} there", 31)  # not broken: the terminal does


def test_a_terminal_that_is_resized_gets_each_word_once() -> None:
    made, file = console(60)
    markdown = Markdown(made)
    words = [f"w{n}" for n in range(300)]
    for n, word in enumerate(words):
        made.width = 60 if n < 100 else 25 if n < 200 else 90
        markdown.write(f"{word} ")
    markdown.end()
    assert CONTROLS.sub("", file.getvalue()).split() == words
    widths = [len(row) for row in CONTROLS.sub("", file.getvalue()).splitlines()]
    assert max(widths[-3:]) > 60
    assert sum(width <= 25 for width in widths) > 10


@pytest.mark.parametrize("name", ["docs/http.md", "docs/quantization.md", "CONTRIBUTING.md"])
def test_the_pieces_do_not_matter(name: str) -> None:
    text = (ROOT / name).read_text()[:12000]
    assert shown(text) == shown([text])


def test_what_stands_before_a_mark_is_one_word_with_it() -> None:
    text = "many words, a state ([some more](#more)), and the rest\n"
    for width in range(10, 40):
        assert shown(text, width) == shown([text], width)


def test_a_long_line_is_put_away_as_it_goes() -> None:
    words = " ".join(f"word{n} **bold{n}** `c{n}`" for n in range(300))
    assert shown(words) == shown([words])
    assert shown(words).split() == re.sub(r"[*`]", "", words).split()
    signs = "\u6f22**\u5b57**`\u6f22`\u3002" * 300
    assert shown(signs) == shown([signs])


def test_random_marks_lose_and_double_nothing() -> None:
    rng = random.Random(5)
    marks = ["*", "**", "_", "`", "[", "](u)", "- ", "# ", "> ", "|", "\n", "\n\n", "1. ", "~~"]
    for _ in range(500):
        parts = [rng.choice([*marks, f"w{n} "]) for n in range(30)]
        text = "".join(parts)
        words = re.findall(r"w\d+", text)
        drawn = shown(text)
        assert re.findall(r"w\d+", drawn) == words, text


def test_controls_of_an_answer_do_not_reach_the_terminal() -> None:
    assert visible("a\x1b[2Jb\r\n\x07\x9bc\t") == "a\u241b[2Jb\n\u2407\ufffdc\t"
    made, file = console()
    writer = RichWriter(made, hide_thinking=False)
    writer.text("x\x1b]0;title\x07")
    writer.end()
    assert "\x1b]" not in file.getvalue()


def test_thinking_is_apart() -> None:
    made, file = console(30)
    writer = RichWriter(made, hide_thinking=False)
    for piece in ("\n", "I think of ", "many words that are wrapped", "\n\nand end"):
        writer.thinking(piece)
    writer.text("Yes.")
    writer.end()
    assert CONTROLS.sub("", file.getvalue()).splitlines() == [
        "\u2502 I think of many words that",
        "\u2502 are wrapped",
        "\u2502 ",
        "\u2502 and end",
        "",
        "Yes.",
    ]
    made, file = console()
    writer = RichWriter(made, hide_thinking=True)
    writer.thinking("secret")
    writer.text("Yes.")
    writer.end()
    assert "secret" not in file.getvalue()
    assert CONTROLS.sub("", file.getvalue()).endswith("Yes.\n")


def test_a_sign_until_the_answer_begins() -> None:
    made, file = console()
    writer = RichWriter(made, hide_thinking=False)
    writer.wait()
    assert file.getvalue() == "\u2026"
    writer.text("")
    assert file.getvalue() == "\u2026"
    writer.text("Yes.")
    writer.end()
    assert file.getvalue() == "\u2026\r\x1b[2KYes.\n"


def test_plain_is_the_text_itself() -> None:
    file = io.StringIO()
    writer = PlainWriter(file, hide_thinking=False)
    writer.thinking("hm")
    writer.text("# **x**")
    writer.end()
    assert file.getvalue() == "# **x**\n"


def test_without_colour_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    made = Console(file=file, width=60, force_terminal=True, highlight=False)
    markdown = Markdown(made)
    markdown.write("`x` ```\n\n```python\nx = 'y'\n```\n")
    markdown.end()
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", file.getvalue())
