"""The safetensors of a checkpoint folder: one file, or shards with an index."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.detached import detached
from edge_llm.llm.checkpoints.files import read_json_object
from edge_llm.llm.config import shorten

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as its file's header describes it; ``dtype`` in the format's own words (F32)."""

    path: Path
    shape: Shape
    dtype: str


@dataclass(frozen=True, slots=True)
class Tensors:
    """The tensors of a folder by name; ``missing`` has a line for each that the index names and
    the shards lack."""

    entries: Mapping[str, Entry]
    missing: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """The files, sorted."""
        return sorted({entry.path for entry in self.entries.values()})

    def read(self, name: str) -> torch.Tensor:
        """A copy of one tensor, read now.

        Raises:
            CheckpointError: it can no longer be read.
        """
        return detached(self.view(name))

    def view(self, name: str) -> torch.Tensor:
        """One tensor as a view of its file, see `detached`.

        Raises:
            CheckpointError: it can no longer be read.
        """
        path = self.entries[name].path
        with _open(path) as file:
            try:
                tensor: torch.Tensor = file.get_tensor(name)
            except SafetensorError as exc:
                raise CheckpointError(f"{path}: {name} cannot be read: {exc}") from exc
        return tensor

    def metadata(self) -> dict[str, str]:
        """The headers' strings, of all files together.

        Raises:
            CheckpointError: a file can no longer be read.
        """
        merged: dict[str, str] = {}
        for path in self.paths:
            with _open(path) as file:
                merged |= file.metadata() or {}
        return merged


def open_tensors(path: Path) -> Tensors:
    """The tensors of a checkpoint folder; reads headers alone.

    Raises:
        CheckpointError: no weights, a missing or damaged file.
    """
    return _entries(_tensor_files(path))


def open_tensor_file(path: Path) -> Tensors:
    """The tensors of one file; reads its header alone.

    Raises:
        CheckpointError: it is damaged or missing.
    """
    return _entries(dict.fromkeys(_names(path), path))


def _tensor_files(path: Path) -> dict[str, Path]:
    """Tensor name -> the file that holds it."""
    if (path / INDEX).is_file():
        weight_map = read_json_object(path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{path / INDEX} has no weight_map")
        for name, file in weight_map.items():
            # A plain name: an index must not lead out of its folder.
            if not isinstance(file, str) or not re.fullmatch(r"[\w.-]+\.safetensors", file):
                raise CheckpointError(
                    f"{path / INDEX}: {shorten(name)}: got file {shorten(file)}, "
                    "expected the name of a .safetensors file beside the index"
                )
        shards = {file: path / file for file in sorted(set(weight_map.values()))}
        missing = [str(shard) for shard in shards.values() if not shard.is_file()]
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            raise CheckpointError(
                f"{path / INDEX} names files that are missing: {missing[:10]}{more}"
            )
        return {name: shards[file] for name, file in weight_map.items()}
    if (path / WHOLE).is_file():
        return dict.fromkeys(_names(path / WHOLE), path / WHOLE)
    pickled = sorted(entry.name for entry in path.glob("*") if entry.suffix in (".bin", ".pth"))
    got = f"; got {', '.join(pickled)}, which is never unpickled" if pickled else ""
    raise CheckpointError(f"{path} has no weights: expected {WHOLE} or {INDEX}{got}")


def _entries(files: Mapping[str, Path]) -> Tensors:
    entries: dict[str, Entry] = {}
    missing: list[str] = []
    holdings: dict[Path, list[str]] = {}
    for name, path in files.items():
        holdings.setdefault(path, []).append(name)
    for path, names in holdings.items():
        with _open(path) as file:
            there = set(file.keys())
            for name in names:
                if name in there:
                    view = file.get_slice(name)
                    entries[name] = Entry(path, tuple(view.get_shape()), view.get_dtype())
                else:
                    missing.append(
                        f"missing: {shorten(name)} in {path.name}, where the index puts it"
                    )
    return Tensors(entries, tuple(missing))


def _names(path: Path) -> Iterable[str]:
    with _open(path) as file:
        return list(file.keys())


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"{path} is not a safetensors file: {exc}") from exc
