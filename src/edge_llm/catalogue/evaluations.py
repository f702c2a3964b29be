"""What evaluations have found out about programs: kept beside the store, by the program's digest,
so that files stay what their export has made them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_llm.catalogue.files import scratch_folder
from edge_llm.catalogue.store import home
from edge_llm.errors import SourceError

_MOST = 1 << 24  # bytes of a file


def evaluations_of(digest: str) -> list[dict[str, Any]]:
    """Return the records of a program, the latest first; a file that cannot be read has none."""
    path = _path(digest)
    with suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= _MOST:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, list):
                return [record for record in found if _is_record(record)]
    return []


def remember(digest: str, record: Mapping[str, Any]) -> None:
    """Keep what an evaluation has found: ``what`` was evaluated, and its ``figures``. A former
    record of the same goes.

    Raises:
        SourceError: it cannot be written.
    """
    path = _path(digest)
    others = [each for each in evaluations_of(digest) if each["what"] != record["what"]]
    text = json.dumps([dict(record), *others], indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.parent, ".evaluation-") as scratch:
            whole = scratch / "file"
            whole.write_text(text, encoding="utf-8")
            os.replace(whole, path)
    except OSError as error:
        raise SourceError(
            f"cannot keep what was found in {path}: {error.strerror or error}",
            hint="EDGE_LLM_HOME names another folder.",
        ) from error


def _path(digest: str) -> Path:
    return home() / "evaluations" / f"{digest}.json"


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("what"), dict):
        return False
    figures = record.get("figures")
    return isinstance(figures, dict) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], int | float)
        and isinstance(pair[1], int | float | None)
        for pair in figures.values()
    )
