"""Two reports side by side."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from edge_llm.cli.compare import side_by_side
from edge_llm.errors import ProgramError
from edge_llm.export.compare import Subject, changed_weights, compare
from edge_llm.export.report import WeightRow, build_report


def subject(name: str, rows: list[WeightRow], **changes: Any) -> Subject:
    report = build_report(
        rows,
        tied={},
        constants=frozenset(),
        notes=[],
        unread_config_keys=[],
    )
    return Subject(name, 5000, 128, 64, report | changes)


FIRST = [
    WeightRow("a", "a", "i8", (16, 32), 640, 44.0),
    WeightRow("b", "b", "i4g32", (16, 32), 352, 20.0),
    WeightRow("c", "c", "i4g32", (16, 32), 352, 21.0),
    WeightRow("d", "d", "i8", (16, 32), 640, 40.0),
]
SECOND = [
    FIRST[0],
    replace(FIRST[1], sqnr_db=20.5),
    replace(FIRST[2], format="i8", bytes=640, sqnr_db=43.0),
    replace(FIRST[3], sqnr_db=None),  # as in a dry run
    WeightRow("e", "e", "f16", (16, 32), 1088, None),
]


def test_every_quantity_is_a_pair() -> None:
    got = compare(subject("x", FIRST), subject("y", SECOND))
    assert got["names"] == ["x", "y"]
    assert got["totals"]["weight_bytes"] == [1984, 3360]
    assert got["totals"]["bits_per_weight"] == [8 * 1984 / 2048, 8 * 3360 / 2560]
    assert got["totals"]["lowest_sqnr_db"] == [20.0, 20.5]
    assert got["formats"] == {"i8": [1280, 1920], "i4g32": [704, 352], "f16": [None, 1088]}
    assert got["weights"][1] == {
        "name": "b",
        "format": ["i4g32", "i4g32"],
        "bytes": [352, 352],
        "sqnr_db": [20.0, 20.5],
    }
    assert [row["name"] for row in got["weights"]] == ["a", "b", "c", "d", "e"]


def test_the_largest_differences_come_first() -> None:
    got = compare(subject("x", FIRST), subject("y", SECOND))
    assert [row["name"] for row in changed_weights(got)] == ["e", "c", "b"]


def test_as_text() -> None:
    got = compare(subject("x", FIRST), subject("y", SECOND))
    lines = side_by_side(got).splitlines()
    assert lines[0].split() == ["x", "y", "RATIO"]
    cells = {line[:18].strip(): line[18:].split() for line in lines[1:]}
    assert cells["weight bytes"] == ["1,984", "3,360", "1.694"]
    assert cells["format f16"] == ["-", "1.1", "kB", "-"]
    assert "3 of 5 weights differ:" in lines
    many = [replace(FIRST[1], name=f"w{i}", sqnr_db=float(i)) for i in range(14)]
    other = [replace(row, sqnr_db=50.0) for row in many]
    text = side_by_side(compare(subject("x", many), subject("y", other)))
    assert text.endswith("and 4 more (--json lists all)")
    assert "all weights have the same" in side_by_side(
        compare(subject("x", FIRST), subject("y", FIRST))
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda report: report.clear(),
        lambda report: report.update(weights="x"),
        lambda report: report["weights"][0].update(bytes="many"),
        lambda report: report["weights"][0].update(sqnr_db=[1]),
        lambda report: report.update(weight_bytes=True),
        lambda report: report.update(formats={"i8": 3}),
    ],
)
def test_reports_of_strangers(damage: Any) -> None:
    theirs = subject("theirs.edge", FIRST)
    report = copy.deepcopy(dict(theirs.report))
    damage(report)
    with pytest.raises(ProgramError, match=r"theirs\.edge: its report is missing, or not"):
        compare(subject("x", FIRST), replace(theirs, report=report))
