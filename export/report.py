"""The report of an export, for people and for the file: every weight accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Literal, get_args

from edge_llm.program.plan import Weight

# unchanged: the checkpoint's own integers; exact: other numbers for the same values; adjusted: its
# own integers, but for scales rounded to those of the format, or codes moved into its range.
Outcome = Literal["unchanged", "exact", "adjusted", "rounded"]
_WORSE: tuple[Outcome | None, ...] = (None, *get_args(Outcome))  # each than the one before


@dataclass(frozen=True, slots=True)
class WeightRow:
    """The fate of one parameter.

    Attributes:
        name: the parameter's.
        tensor: the file's tensor that holds it; a merged one holds several.
        format: the name of its format.
        shape: its own.
        bytes: as packed.
        sqnr_db: signal to quantization noise of what was rounded or adjusted, in dB; else None.
        source: how the checkpoint stores it, in the checkpoint's own words; None where it does not.
        outcome: what the values lost; None where that was not measured.
    """

    name: str
    tensor: str
    format: str
    shape: tuple[int, ...]
    bytes: int
    sqnr_db: float | None = None
    source: str | None = None
    outcome: Outcome | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, and ``bits`` a weight."""
        bits = round(8.0 * self.bytes / prod(self.shape), 3)
        return asdict(self) | {"shape": list(self.shape), "bits": bits}


def stack_row(weight: Weight, rows: Sequence[WeightRow], sqnr_db: float | None) -> WeightRow:
    """Return one row for the members of a stack, of which a model has thousands; ``sqnr_db`` is
    that of all of them."""
    sources = {row.source for row in rows}
    return replace(
        rows[0],
        name=weight.name,
        shape=weight.shape,
        bytes=sum(row.bytes for row in rows),
        sqnr_db=sqnr_db,
        source=rows[0].source if len(sources) == 1 else "several",
        outcome=max((row.outcome for row in rows), key=_WORSE.index),
    )


def build_report(
    rows: Sequence[WeightRow],
    *,
    tied: Mapping[str, str],
    constants: frozenset[str],
    notes: Sequence[str],
    unread_config_keys: Sequence[str],
) -> dict[str, Any]:
    """Return the report as JSON values. ``tied`` lists parameters stored under another's tensor,
    ``constants`` the rows that are no parameters (they do not count in bits per weight)."""
    parameters = {row.name: prod(row.shape) for row in rows if row.name not in constants}
    parameter_bytes = sum(row.bytes for row in rows if row.name not in constants)
    total = sum(parameters.values())
    formats: dict[str, dict[str, int]] = {}
    for row in rows:
        entry = formats.setdefault(
            row.format, {"weights": 0, "elements": 0, "bytes": 0, "unchanged": 0, "adjusted": 0}
        )
        entry["weights"] += 1
        entry["elements"] += prod(row.shape)
        entry["bytes"] += row.bytes
        for outcome in ("unchanged", "adjusted"):
            entry[outcome] += row.outcome == outcome
    return {
        "parameters": total,
        "weight_bytes": sum(row.bytes for row in rows),
        "bits_per_weight": 8.0 * parameter_bytes / total,
        "formats": formats,
        "tied": dict(tied),
        "notes": [*notes, *_adjusted(rows)],
        "unread_config_keys": list(unread_config_keys),
        "weights": [row.to_json() for row in rows],
    }


def _adjusted(rows: Sequence[WeightRow]) -> list[str]:
    """Return a line about the weights that are nearly the checkpoint's own, if there are any."""
    found = [row for row in rows if row.outcome == "adjusted"]
    if not found:
        return []
    lowest = min(row.sqnr_db for row in found if row.sqnr_db is not None)
    return [
        f"{len(found)} weights keep the checkpoint's integers, but for scales rounded to fp16 or "
        f"codes of -128 that become -127: SQNR {lowest:.1f} dB at least"
    ]


def summary(report: Mapping[str, Any]) -> str:
    """Return a few lines: totals, lowest SQNR, notes."""
    lines = [
        f"{report['parameters']:,} parameters in {megabytes(report['weight_bytes'])}, "
        f"{report['bits_per_weight']:.2f} bits per weight"
    ]
    lines += formats_lines(report)
    measured = [
        row
        for row in report["weights"]
        if row["sqnr_db"] is not None and row.get("outcome") != "adjusted"
    ]
    if measured:
        worst = min(measured, key=lambda row: float(row["sqnr_db"]))
        lines.append(f"lowest SQNR: {worst['sqnr_db']:.1f} dB, {worst['name']} ({worst['format']})")
    return "\n".join([*lines, *notes_lines(report)])


def formats_lines(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each format: weights, bytes, bits a weight, and how many of the weights
    are the checkpoint's own numbers, or nearly."""
    return [
        f"  {name:<8}{entry['weights']:>5} weights {megabytes(entry['bytes']):>12}"
        f"{8.0 * entry['bytes'] / entry['elements']:>8.3f} bits"
        + "".join(
            f", {entry[outcome]} of them {outcome}"
            for outcome in ("unchanged", "adjusted")
            if entry.get(outcome)  # older programs say nothing of the second
        )
        for name, entry in report["formats"].items()
    ]


def notes_lines(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each note, and the config keys that were not read."""
    lines = [f"note: {note}" for note in report["notes"]]
    if report["unread_config_keys"]:
        lines.append(f"config keys not read: {', '.join(report['unread_config_keys'])}")
    return lines


def megabytes(count: float) -> str:
    """1234567 -> "1.2 MB"."""
    return f"{count / 1e6:,.1f} MB"
