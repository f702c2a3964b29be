"""Reading small untrusted files of a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path

from edge_llm.errors import CheckpointError

# Configs are a few KiB; the largest file is a shard index: about 1 MiB for 10^4 tensors.
MAX_BYTES = 16 * 2**20
_POINTER = b"version https://git-lfs.github.com/spec/"


def read_text(path: Path) -> str:
    """Return UTF-8 text of at most MAX_BYTES.

    Raises:
        CheckpointError: unreadable, too large, or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointError(f"{path} has {size} bytes, expected at most {MAX_BYTES}")
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise CheckpointError(f"{path} is not UTF-8 text") from exc


def read_json(path: Path) -> object:
    """Return a JSON value.

    Raises:
        CheckpointError: unreadable, or not JSON.
    """
    try:
        value: object = json.loads(read_text(path))
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} is not valid JSON: {exc}") from exc
    return value


def read_json_object(path: Path) -> dict[str, object]:
    """Return a JSON object.

    Raises:
        CheckpointError: unreadable, not JSON, or not an object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def refuse_pointer(path: Path) -> None:
    """Check that a file that could not be read is not what Git leaves in place of a large one.

    Raises:
        CheckpointError: it is.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(len(_POINTER))
    except OSError:
        return
    if begin == _POINTER:
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {path.stat().st_size} bytes, expected the file that "
            "it stands for",
            hint="run `git lfs pull` in the folder, or fetch the model with `edge-llm pull`",
        )
