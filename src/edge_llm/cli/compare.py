"""Two reports side by side, as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import human_bytes, table

if TYPE_CHECKING:
    from edge_llm.export.compare import Subject

_SHOWN = 10  # weights
_UNITS: Mapping[str, Callable[[float], str]] = {
    "totals": lambda value: f"{value:,}" if isinstance(value, int) else f"{value:.2f}",
    "formats": human_bytes,
}
_PREFIX = {"formats": "format "}


def subject_named(name: str) -> Subject:
    """A program file, or the name of one in the store, to compare with.

    Raises:
        SourceError, ProgramError: there is no such program, or it is damaged.
    """
    from edge_llm.catalogue import find_program
    from edge_llm.export.compare import program_subject
    from edge_llm.program.file import Program

    with Program.open(find_program(name)) as program:
        return program_subject(program)


def side_by_side(comparison: Mapping[str, Any]) -> str:
    """The quantities of two programs in columns, and the weights that differ most."""
    from edge_llm.export.compare import changed_weights

    names = comparison["names"]
    rows = [
        (
            _label(section, key),
            *(_shown(value, unit) for value in pair),
            _ratio(pair),
        )
        for section, unit in _UNITS.items()
        for key, pair in comparison[section].items()
    ]
    text = table(("", *names, "RATIO"), rows)
    changed = changed_weights(comparison)
    if not changed:
        return text + "\nall weights have the same format, bytes and SQNR"
    head = ("WEIGHT", "FORMAT", "", "BYTES", "", "SQNR dB", "")
    weights = [
        (row["name"], *row["format"], *row["bytes"], *row["sqnr_db"]) for row in changed[:_SHOWN]
    ]
    text += f"\n\n{len(changed)} of {len(comparison['weights'])} weights differ:\n"
    text += table(head, weights)
    if len(changed) > _SHOWN:
        text += f"\nand {len(changed) - _SHOWN} more (--json lists all)"
    return text


def _label(section: str, key: str) -> str:
    words = key if section == "formats" else key.replace("_", " ").replace(".", ": ")
    return _PREFIX.get(section, "") + words


def _shown(value: float | None, unit: Callable[[float], str]) -> str:
    return "-" if value is None else unit(value)


def _ratio(pair: Sequence[Any]) -> str:
    first, second = pair
    return f"{second / first:.3f}" if first and second is not None else "-"
