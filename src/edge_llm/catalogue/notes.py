"""Small JSON files in which the store notes what it would otherwise have to find out again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def read_notes(path: Path) -> dict[str, Any]:
    """Return the object in a file; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_notes(path: Path, notes: Mapping[str, Any]) -> None:
    """Put ``notes`` in the place of a file in one step, or, where that fails, leave it as it is:
    what is not noted is found out again the next time."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(notes, indent=1), encoding="utf-8")
        scratch.replace(path)
