"""Loops are seen soon, and texts that only repeat much are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_llm.cli.chat.repetition import LoopDetector, repeated

ROOT = Path(__file__).resolve().parents[3]

BELLS = """Hear the sledges with the bells— Silver bells!
What a world of merriment their melody foretells!
How they tinkle, tinkle, tinkle, In the icy air of night!
To the tintinabulation that so musically wells
From the bells, bells, bells, bells, Bells, bells, bells—
From the jingling and the tinkling of the bells.
"""
ROUND = "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, merrily,\nLife is but a dream.\n\n"  # noqa: E501
TABLE = "| 0 | 0 | 0 | 0 |\n" * 30
ART = "-" * 79 + "\n" + ("|" + " " * 77 + "|\n") * 20 + "=" * 79
ZEROS = "```c\nstatic const int table[] = {\n" + "    0, 0, 0, 0, 0, 0, 0, 0,\n" * 40 + "};\n```\n"
COUNTING = "".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(99))


def found_at(text: str, step: int = 4) -> int | None:
    detector = LoopDetector()
    for place in range(0, len(text), step):
        if detector.push(text[place : place + step]):
            return place
    return None


@pytest.mark.parametrize("unit", ["ha", "x\n", "I am a cat. ", "- item\n", "the same line\n\n" * 3])
def test_a_loop_is_found_within_a_thousand_characters(unit: str) -> None:
    assert (found_at("It began well. " + unit * 2000) or 0) in range(500, 1000)


def test_a_loop_of_paragraphs_is_found_at_the_fifth() -> None:
    unit = "".join(f"This is sentence number {n} of many. " for n in range(20))
    place = found_at(unit * 10)
    assert place is not None
    assert place <= 5 * len(unit) + 200


@pytest.mark.parametrize("text", [BELLS * 2, ROUND * 3, TABLE, ART, ZEROS, COUNTING])
def test_texts_that_repeat_much(text: str) -> None:
    assert found_at(text) is None


def test_real_texts() -> None:
    files = [*(ROOT / "docs").glob("*.md"), *(ROOT / "src/edge_llm/cli").glob("*.py")]
    files += [ROOT / "LICENSE", *(ROOT / "runner/native/core").glob("*.cpp")]
    assert len(files) > 40
    assert [file for file in files if found_at(file.read_text()[:20000]) is not None] == []


def test_the_longest_repetition() -> None:
    assert repeated("no") == ("", 0)
    assert repeated("xy" + "ab" * 5) == ("ab", 10)
    assert repeated("ab" * 4) == ("", 0)  # too few
