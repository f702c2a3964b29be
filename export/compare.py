"""Two programs side by side, by their reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_llm.errors import ProgramError
from edge_llm.program.cost import token_bytes
from edge_llm.program.file import Program

Pair = list[Any]  # of the first and the second; None where one has no such thing


@dataclass(frozen=True, slots=True)
class Subject:
    """One side of a comparison: a program, or what a dry run says of one. Sizes in bytes."""

    name: str
    file_bytes: int
    context: int
    kv_bytes_per_token: int
    report: Mapping[str, Any]


def program_subject(program: Program) -> Subject:
    """A file."""
    return Subject(
        program.path.name,
        program.file_bytes,
        program.plan.context,
        token_bytes(program.plan, program.documents.model.kv_dtype),
        program.documents.report,
    )


def planned_subject(document: Mapping[str, Any]) -> Subject:
    """Return what `dry_run` returned."""
    return Subject(
        f"{document['model']} (planned)",
        document["file"]["bytes"],
        document["context"],
        document["kv"]["bytes_per_token"],
        document["report"],
    )


def compare(first: Subject, second: Subject) -> dict[str, Any]:
    """Every quantity as a pair, as JSON values: ``totals``, ``formats``, and ``weights``
    by the name of the parameter.

    Raises:
        ProgramError: a report that is missing, or not in a form that this version knows.
    """
    mine, theirs = _facts(first), _facts(second)
    paired: dict[str, Any] = {"names": [first.name, second.name]}
    for section in mine:
        left, right = mine[section], theirs[section]
        keys = [*left, *(key for key in right if key not in left)]
        paired[section] = {key: [left.get(key), right.get(key)] for key in keys}
    paired["weights"] = [
        {
            "name": name,
            **{
                key: [None if row is None else row[key] for row in rows]
                for key in ("format", "bytes", "sqnr_db")
            },
        }
        for name, rows in paired["weights"].items()
    ]
    return paired


def changed_weights(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The weights that differ in format or bytes, or in SQNR where both have one: those with the
    largest difference in bytes first, then in SQNR."""

    def size(row: Mapping[str, Any]) -> float:
        return abs(float(row["bytes"][0] or 0) - float(row["bytes"][1] or 0))

    def noise(row: Mapping[str, Any]) -> float:
        first, second = row["sqnr_db"]
        return 0.0 if first is None or second is None else abs(float(first) - float(second))

    changed = [
        row
        for row in comparison["weights"]
        if row["format"][0] != row["format"][1] or size(row) or noise(row)
    ]
    return sorted(changed, key=lambda row: (-size(row), -noise(row)))


def _facts(subject: Subject) -> dict[str, dict[str, Any]]:
    """The sections of one side, every value a plain number but the rows of ``weights``."""
    report = subject.report
    try:
        weights = {str(row["name"]): _weight(row) for row in report["weights"]}
        measured = [row["sqnr_db"] for row in weights.values() if row["sqnr_db"] is not None]
        return {
            "totals": {
                "file_bytes": subject.file_bytes,
                "weight_bytes": _number(report["weight_bytes"]),
                "parameters": _number(report["parameters"]),
                "bits_per_weight": _number(report["bits_per_weight"]),
                "context": subject.context,
                "kv_bytes_per_token": subject.kv_bytes_per_token,
                "lowest_sqnr_db": min(measured, default=None),
            },
            "formats": {
                str(name): _number(entry["bytes"]) for name, entry in report["formats"].items()
            },
            "weights": weights,
        }
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ProgramError(
            f"{subject.name}: its report is missing, or not in a form that this version knows"
        ) from exc


def _weight(row: Mapping[str, Any]) -> dict[str, Any]:
    sqnr = row["sqnr_db"]
    return {
        "format": str(row["format"]),
        "bytes": _number(row["bytes"]),
        "sqnr_db": None if sqnr is None else _number(sqnr),
    }


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value
