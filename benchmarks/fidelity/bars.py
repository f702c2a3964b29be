"""What the figures of docs/quality.md are held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rows import BEFORE, CALIBRATED, GROUPED, K_QUANTS, PLAIN

Data = dict[str, Any]
SIDES = {"token": 2.0, "group": 1.3}  # times llama.cpp's divergence on the same file, at most
OWN = 0.008  # nats, of SmolLM2's own file with activations per group
HALF, THREE_QUARTERS = 0.5, 0.75  # of the divergence of `BEFORE`


@dataclass(frozen=True, slots=True)
class Check:
    """One bar: ``what`` is asked, what was ``found``, and whether that passes."""

    key: str
    what: str
    found: str
    passes: bool

    @property
    def verdict(self) -> str:
        return "pass" if self.passes else "miss"


def grid_checks(entry: Data) -> list[Check]:
    """Return the bars of one type of llama.cpp's quantizer; decode's where it was measured."""
    theirs, checks = entry["llama_cpp"], []
    for side, bar in SIDES.items():
        ours = entry[side]
        times = ours["kl"] / theirs["kl"]
        what = f"{entry['type']}, activations per {side}: KL at most {bar} times llama.cpp's"
        checks.append(Check(f"kl-{side}", what, f"{times:.2f}", times <= bar))
    for side in SIDES:
        if "decode" in entry[side]:
            ratio = entry[side]["decode"]["ratio"]
            what = f"{entry['type']}, activations per {side}: decode not slower than llama.cpp's"
            checks.append(Check(f"decode-{side}", what, f"{ratio:.2f}", ratio >= 1))
    return checks


def main_checks(data: Data) -> list[Check]:
    """Return the bars of what is made of the float checkpoint, where their rows are there."""
    rows = {row["title"]: row for row in data["programs"]}
    checks = []
    if K_QUANTS in rows and any(title.startswith(CALIBRATED) for title in rows):
        checks.append(_beside_k_quants(rows[K_QUANTS], data["programs"]))
    if BEFORE in rows:
        before = rows[BEFORE]
        for title, bar in ((CALIBRATED, HALF), (PLAIN, THREE_QUARTERS)):
            for name in (title, f"{title}, {GROUPED}"):
                if name in rows:
                    share = rows[name]["kl"] / before["kl"]
                    what = f"{name}: KL at most {bar} times that of {BEFORE}"
                    checks.append(Check(name, what, f"{share:.2f}", share <= bar))
    return checks


def _beside_k_quants(theirs: Data, programs: list[Data]) -> Check:
    """Return the bar of the calibrated programs of no more bits: the best of them counts."""
    what = f"the best calibrated program of at most {theirs['bits_per_weight']:.2f} bits per weight"
    what += f": a lower KL than {K_QUANTS}, {theirs['kl']:.4f}"
    fitting = [
        row
        for row in programs
        if row["title"].startswith(CALIBRATED)
        and row["bits_per_weight"] <= theirs["bits_per_weight"]
    ]
    if not fitting:
        return Check("k-quants", what, "there is none", False)
    best = min(fitting, key=lambda row: float(row["kl"]))
    found = f"{best['kl']:.4f} ({best['title']}, {best['bits_per_weight']:.2f} bits)"
    return Check("k-quants", what, found, best["kl"] < theirs["kl"])


def own_checks(data: Data) -> list[Check]:
    """Return the bar of SmolLM2's own file."""
    return [
        Check("own", f"{row['title']}: KL at most {OWN}", f"{row['kl']:.4f}", row["kl"] <= OWN)
        for row in data.get("own", ())
        if row["title"].endswith(GROUPED)
    ]
