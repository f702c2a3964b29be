"""The sections of docs/quality.md from docs/data/quality.json and quality-grids.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bars import Check, grid_checks, main_checks, own_checks
from document import ROOT, replace_section, table
from rows import KINDS, SIDES, main_rows
from tables import QUIET

PAGE = ROOT / "docs" / "quality.md"
DATA = ROOT / "docs" / "data"
ABSENT = "Not measured yet."
SIDE_TITLES = {"llama_cpp": "llama.cpp", "token": "per token", "group": "per group"}

Data = dict[str, Any]


def write() -> None:
    """Write each section."""
    for name, text in sections().items():
        replace_section(name, text, PAGE)


def sections() -> dict[str, str]:
    """Return the text of each section, by its name."""
    main, grids = (_read(name) for name in ("quality.json", "quality-grids.json"))
    return {
        "schemes": schemes(main) if main else ABSENT,
        "own-file": own(main) if main and "own" in main else ABSENT,
        "grids": grid(grids) if grids else ABSENT,
    }


def verdicts() -> str:
    """Return a line for each bar: what is asked, what was measured, passed or missed."""
    main, grids = (_read(name) for name in ("quality.json", "quality-grids.json"))
    checks = [*(main_checks(main) + own_checks(main) if main else ())]
    if grids is not None:
        checks += [check for entry in grids["types"] for check in grid_checks(entry)]
    return "\n".join(f"{check.what}: {check.found} ({check.verdict})" for check in checks)


def _read(name: str) -> Data | None:
    path = DATA / name
    found: Data | None = json.loads(path.read_text("utf-8")) if path.is_file() else None
    return found


def schemes(data: Data) -> str:
    """Return the table of what is made of the float checkpoint, and its bars."""
    programs = data["programs"]
    missing = _missing(
        [row.title for row in main_rows()], [program["title"] for program in programs]
    )
    return "\n\n".join([_head(data) + missing, _programs(programs), _checks(main_checks(data))])


def own(data: Data) -> str:
    """Return the table of what runs SmolLM2's own file, and its bar."""
    return "\n\n".join([_programs(data["own"]), _checks(own_checks(data))])


def grid(data: Data) -> str:
    """Return the judged table of llama.cpp's types, and one with the other figures."""
    judged, rows = [], []
    for entry in data["types"]:
        checks = {check.key: check for check in grid_checks(entry)}
        cells = [
            f"{checks[key].found} ({checks[key].verdict})" if key in checks else "-"
            for key in ("kl-token", "kl-group", "decode-token", "decode-group")
        ]
        judged.append([entry["type"], _kl(entry["llama_cpp"]), *cells])
        for side in SIDES:
            rows.append([entry["type"], SIDE_TITLES[side], *_figures(entry[side])])
    kinds = ("KL per token", "KL per group", "decode per token", "decode per group")
    head = ["type", "KL of llama.cpp", *(f"{kind}, times llama.cpp's" for kind in kinds)]
    columns = ["type", "run by", *_COLUMNS]
    missing = _missing(KINDS, [entry["type"] for entry in data["types"]])
    return "\n\n".join([_head(data) + missing, table(head, judged), table(columns, rows)])


_COLUMNS = (
    "bits per weight", "MB", "KL, mean", "median", "99 %", "largest", "perplexity", "top-1",
)  # fmt: skip


def _programs(rows: list[Data]) -> str:
    timed = any("decode" in row for row in rows)
    columns = ["", *_COLUMNS, *(["decode, times Q4_0's"] if timed else [])]
    cells = [
        [
            row["title"] if row["engine"] == "llama.cpp" else f"edge-llm {row['title']}",
            *_figures(row),
            *([_times(row)] if timed else []),
        ]
        for row in rows
    ]
    return table(columns, cells)


def _figures(row: Data) -> list[str]:
    return [
        f"{row['bits_per_weight']:.2f}",
        f"{row['file_bytes'] / 1e6:.1f}",
        _kl(row),
        _small(row["kl_median"]),
        _small(row["kl_p99"]),
        _small(row["kl_max"]),
        f"{row['perplexity']:.2f} ({row['perplexity_ratio'] - 1:+.1%})",
        f"{row['top1']:.1%}",
    ]


def _kl(row: Data) -> str:
    return f"{_small(row['kl'])} ± {_small(row['kl_error'])}"


def _small(value: float) -> str:
    """Return two digits that count, at least three decimals and at most five."""
    for decimals in (3, 4):
        if value == 0 or value >= 10.0 ** (1 - decimals):
            return f"{value:.{decimals}f}"
    return f"{value:.5f}"


def _times(row: Data) -> str:
    return f"{row['decode']['ratio']:.2f}" if "decode" in row else "-"


def _head(data: Data) -> str:
    scored = data["windows"] * data["window"] // 2
    took = f" The scores took {data['minutes']} minutes." if "minutes" in data else ""
    parts = [
        f"{data['where']} {data['windows']} windows of {data['window']:,} tokens, {scored:,} "
        f"tokens scored.{took}"
    ]
    if "speed" in data:
        speed = data["speed"]
        parts.append(f"Decode: {speed['where']} {speed['threads']} threads.")
        if speed["others_share"] > QUIET:
            parts.append(
                f"**Not a quiet machine: other processes took {speed['others_share']:.0%} of it. "
                "The figures of decode judge nothing.**"
            )
    else:
        parts.append("Decode was not measured.")
    return "\n\n".join(parts)


def _missing(wanted: Sequence[str], found: Sequence[str]) -> str:
    """Return a sentence on the rows that no run has come to, if there are any."""
    missing = [title for title in wanted if title not in found]
    return f"\n\n**Not measured yet: {'; '.join(missing)}.**" if missing else ""


def _checks(checks: list[Check]) -> str:
    return table(
        ["bar", "found", ""], [[check.what, check.found, check.verdict] for check in checks]
    )
