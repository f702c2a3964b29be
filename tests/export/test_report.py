"""The report: totals, text, and that every parameter is in it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_llm.export.meter import Meter, anonymous_bytes
from edge_llm.export.outcome import Outcome
from edge_llm.export.report import WeightRow, build_report, summary
from edge_llm.export.verification.metrics import Comparison

ROWS = [
    WeightRow("embed.weight", "embed.weight", "i8", (16, 32), 640, 44.0),
    WeightRow("q.weight", "q+k.weight", "i4g32", (16, 32), 352, None, "Q4_0", "unchanged"),
    WeightRow("k.weight", "q+k.weight", "i4g32", (16, 32), 352, 19.5),
    WeightRow("norm.weight", "norm.weight", "raw_f32", (32,), 128, None),
    WeightRow("cos", "cos", "raw_f32", (8, 4), 128, None),
]
PERFECT = Comparison(4, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0)


def report(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "tied": {"head.weight": "embed.weight"},
        "constants": frozenset({"cos"}),
        "notes": ["k.weight: a note"],
        "unread_config_keys": ["colour"],
    }
    return build_report(ROWS, **values | changes)


def test_totals_count_parameters_and_not_constants() -> None:
    got = report()
    assert got["parameters"] == 3 * 512 + 32
    assert got["weight_bytes"] == 640 + 2 * 352 + 2 * 128
    assert got["bits_per_weight"] == 8 * (640 + 2 * 352 + 128) / (3 * 512 + 32)
    assert got["formats"] == {
        "i8": {"weights": 1, "elements": 512, "bytes": 640, "unchanged": 0, "adjusted": 0},
        "i4g32": {"weights": 2, "elements": 1024, "bytes": 704, "unchanged": 1, "adjusted": 0},
        "raw_f32": {"weights": 2, "elements": 64, "bytes": 256, "unchanged": 0, "adjusted": 0},
    }


def test_it_is_plain_json() -> None:
    got = report()
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_summary_names_the_worst_weight_and_all_notes() -> None:
    text = summary(report())
    assert "lowest SQNR: 19.5 dB, k.weight (i4g32)" in text
    assert "i4g32       2 weights       0.0 MB   5.500 bits, 1 of them unchanged" in text
    assert "note: k.weight: a note" in text
    assert "config keys not read: colour" in text


def outcome(verification: dict[str, Any]) -> Outcome:
    peaks = {"export": 5_000_000}
    return Outcome(Path("x.edge"), report(), {"pack": 1.23456}, peaks, verification)


def test_an_outcome_says_what_was_measured() -> None:
    text = outcome({"skipped": "off in the recipe"}).describe()
    assert text.startswith(summary(report()))
    assert "verify: off in the recipe" in text
    assert "seconds: pack 1.2" in text
    assert "peak anonymous memory: 5.0 MB export" in text
    verify = dict.fromkeys(("same_numbers", "unquantized", "eager_unquantized"), asdict(PERFECT))
    assert "4 positions; against eager PyTorch" in outcome(verify).describe()


def test_meter_sees_memory_and_adds_up_stages() -> None:
    meter = Meter()
    with meter.phase("p"):
        for _ in range(2):
            with meter.stage("s"):
                block = bytearray(b"x") * 32_000_000
    assert meter.seconds["s"] > 0.0
    if anonymous_bytes() is not None:
        assert meter.peaks["p"] >= len(block)
