"""docs/quality.md says what docs/data holds, and its bars are judged as they read."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CODE = ROOT / "benchmarks"
PAGE = (ROOT / "docs" / "quality.md").read_text("utf-8")


def imported(name: str) -> ModuleType:
    saved = list(sys.path)
    sys.path[:0] = [str(CODE / "fidelity"), str(CODE / "peers"), str(CODE)]
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = saved


def test_the_sections_are_of_their_data() -> None:
    for name, text in imported("pages").sections().items():
        begin, end = (f"<!-- {name}: {what} -->\n" for what in ("made by the benchmark", "end"))
        shown = PAGE.split(begin)[1].split(end)[0]
        assert shown.strip() == text.strip(), "run: python benchmarks/quality.py --measure nothing"


def row(title: str, kl: float, bits: float = 5.0) -> dict[str, Any]:
    return {"title": title, "kl": kl, "bits_per_weight": bits}


def test_types_are_judged_by_llama_cpp_on_the_same_file() -> None:
    entry = {
        "type": "Q4_0",
        "llama_cpp": row("", 0.10),
        "token": row("", 0.20) | {"decode": {"ratio": 0.99}},
        "group": row("", 0.14) | {"decode": {"ratio": 1.0}},
    }
    checks = imported("bars").grid_checks(entry)
    assert {check.key: check.passes for check in checks} == {
        "kl-token": True,
        "kl-group": False,
        "decode-token": False,
        "decode-group": True,
    }
    del entry["token"]["decode"], entry["group"]["decode"]
    assert len(imported("bars").grid_checks(entry)) == 2


def test_a_calibrated_program_counts_where_it_has_no_more_bits() -> None:
    bars = imported("bars")
    rows = [row(bars.K_QUANTS, 0.1, 5.0), row(bars.CALIBRATED, 0.2), row("8da8w", 0.01)]
    smaller, larger = (row(f"{bars.CALIBRATED}, {bars.GROUPED}", 0.05, bits) for bits in (5.0, 5.1))
    (check,) = bars.main_checks({"programs": [*rows, larger]})
    assert not check.passes
    (check,) = bars.main_checks({"programs": [*rows, smaller]})
    assert check.passes
    assert bars.main_checks({"programs": rows[:1]}) == []  # not measured, so not judged


def test_gains_are_shares_of_the_divergence_before() -> None:
    bars = imported("bars")
    rows = [row(bars.BEFORE, 0.4), row(bars.PLAIN, 0.3), row(bars.CALIBRATED, 0.21)]
    found = {check.key: check.passes for check in bars.main_checks({"programs": rows})}
    assert found == {bars.PLAIN: True, bars.CALIBRATED: False}


def test_only_activations_per_group_are_asked_for_the_own_file() -> None:
    bars = imported("bars")
    rows = [row(bars.PLAIN, 0.02), row(f"{bars.PLAIN}, {bars.GROUPED}", 0.008)]
    (check,) = bars.own_checks({"own": rows})
    assert check.passes
