"""The text that a model reads for calibration."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from edge_llm.errors import ConfigError

BUILTIN = "builtin"
_BYTES = 2**18  # more than enough tokens


def calibration_file(name: str) -> Path:
    """Return the file that a recipe means: `BUILTIN` is the text that ships with the package."""
    if name == BUILTIN:
        return Path(str(importlib.resources.files("edge_llm") / "configs" / "calibration.txt"))
    return Path(name).expanduser()


def read_calibration(path: Path) -> str:
    """Return the beginning of a text for calibration.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES)
            cut = bool(file.read(1))
    except OSError as exc:
        raise ConfigError(f"calibration: {path} cannot be read: {exc.strerror}") from exc
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        if cut and exc.start >= len(data) - 4:  # in the middle of a character
            return data[: exc.start].decode("utf-8")
        raise ConfigError(f"calibration: {path} is not a text in UTF-8: {exc}") from exc
