"""What an export did, for people and for the file: every weight accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True)
class WeightRow:
    """One parameter: the file's ``tensor`` that holds it (a merged one holds several), its
    ``format``, bytes as packed, signal to quantization noise in dB (None: exact), and whether its
    integers are the checkpoint's own."""

    name: str
    tensor: str
    format: str
    shape: tuple[int, ...]
    bytes: int
    sqnr_db: float | None
    taken_over: bool = False


def build_report(
    rows: Sequence[WeightRow],
    *,
    tied: Mapping[str, str],
    constants: frozenset[str],
    notes: Sequence[str],
    unread_config_keys: Sequence[str],
    seconds: Mapping[str, float],
    peak_anonymous_bytes: Mapping[str, int],
    verify: Mapping[str, Any],
) -> dict[str, Any]:
    """The report as JSON values. ``tied`` lists parameters stored under another's tensor,
    ``constants`` the rows that are no parameters (they do not count in bits per weight)."""
    parameters = {row.name: prod(row.shape) for row in rows if row.name not in constants}
    parameter_bytes = sum(row.bytes for row in rows if row.name not in constants)
    total = sum(parameters.values())
    formats: dict[str, dict[str, int]] = {}
    for row in rows:
        entry = formats.setdefault(row.format, {"weights": 0, "bytes": 0})
        entry["weights"] += 1
        entry["bytes"] += row.bytes
    return {
        "parameters": total,
        "weight_bytes": sum(row.bytes for row in rows),
        "bits_per_weight": 8.0 * parameter_bytes / total,
        "formats": formats,
        "tied": dict(tied),
        "notes": list(notes),
        "unread_config_keys": list(unread_config_keys),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "peak_anonymous_bytes": dict(peak_anonymous_bytes),
        "verify": dict(verify),
        "weights": [asdict(row) | {"shape": list(row.shape)} for row in rows],
    }


def summary(report: Mapping[str, Any]) -> str:
    """A few lines: totals, lowest SQNR, verification, notes."""
    lines = [
        f"{report['parameters']:,} parameters in {megabytes(report['weight_bytes'])}, "
        f"{report['bits_per_weight']:.2f} bits per weight"
    ]
    lines += formats_lines(report)
    measured = [row for row in report["weights"] if row["sqnr_db"] is not None]
    if measured:
        worst = min(measured, key=lambda row: float(row["sqnr_db"]))
        lines.append(f"lowest SQNR: {worst['sqnr_db']:.1f} dB, {worst['name']} ({worst['format']})")
    lines.append(_verify_line(report["verify"]))
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in report["seconds"].items())
    lines.append(f"seconds: {seconds}")
    peaks = report["peak_anonymous_bytes"]
    if peaks:
        listed = ", ".join(f"{megabytes(value)} {stage}" for stage, value in peaks.items())
        lines.append(f"peak anonymous memory: {listed}")
    return "\n".join([*lines, *notes_lines(report)])


def formats_lines(report: Mapping[str, Any]) -> list[str]:
    """A line for each format: weights and bytes."""
    return [
        f"  {name:<8}{entry['weights']:>5} weights {megabytes(entry['bytes']):>12}"
        for name, entry in report["formats"].items()
    ]


def notes_lines(report: Mapping[str, Any]) -> list[str]:
    """A line for each note, and the config keys that were not read."""
    lines = [f"note: {note}" for note in report["notes"]]
    if report["unread_config_keys"]:
        lines.append(f"config keys not read: {', '.join(report['unread_config_keys'])}")
    return lines


def _verify_line(verify: Mapping[str, Any]) -> str:
    if "skipped" in verify:
        return f"verify: skipped ({verify['skipped']})"
    same, quality = verify["same_numbers"], verify["unquantized"]
    return (
        f"verify: {same['positions']} positions; against eager PyTorch with the same numbers: "
        f"KL {same['kl']:.2g}, top-1 {same['top1']:.1%}, cosine {same['cosine']:.6f}; "
        f"against the unquantized checkpoint: KL {quality['kl']:.2g}, top-1 {quality['top1']:.1%}"
    )


def megabytes(count: float) -> str:
    """1234567 -> "1.2 MB"."""
    return f"{count / 1e6:,.1f} MB"
