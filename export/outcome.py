"""The outcome of an export: what was measured while the file was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_llm.export.report import megabytes, summary


@dataclass(frozen=True, slots=True)
class Outcome:
    """An export that is done.

    Attributes:
        path: of the program file.
        report: the file's own, JSON values.
        seconds: stage -> how long it took.
        peak_anonymous_bytes: phase -> the most memory that no file backs.
        verification: the comparisons with eager PyTorch (`Verification.to_json`), or why there
            are none, under "skipped".
        mix: the recipe with the formats that were found under its ``bits``, in YAML; None where it
            has none.
    """

    path: Path
    report: Mapping[str, Any]
    seconds: Mapping[str, float]
    peak_anonymous_bytes: Mapping[str, int]
    verification: Mapping[str, Any]
    mix: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "path": str(self.path),
            "report": dict(self.report),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            "peak_anonymous_bytes": dict(self.peak_anonymous_bytes),
            "verify": dict(self.verification),
            "mix": self.mix,
        }

    def describe(self) -> str:
        """Return it as text for people."""
        seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in self.seconds.items())
        lines = [summary(self.report), self.verdict(), f"seconds: {seconds}"]
        if self.peak_anonymous_bytes:
            peaks = self.peak_anonymous_bytes.items()
            listed = ", ".join(f"{megabytes(value)} {phase}" for phase, value in peaks)
            lines.append(f"peak anonymous memory: {listed}")
        return "\n".join(lines)

    def verdict(self) -> str:
        """Return how near the program is to the checkpoint, or why it was not compared, as a line
        for people."""
        verify = self.verification
        if "skipped" in verify:
            return f"verify: {verify['skipped']}"
        same, quality = verify["same_numbers"], verify["unquantized"]
        return (
            f"verify: {same['positions']} positions; against eager PyTorch with the same numbers: "
            f"KL {same['kl']:.2g}, top-1 {same['top1']:.1%}; against the unquantized checkpoint: "
            f"KL {quality['kl']:.2g}, top-1 {quality['top1']:.1%}"
        )
