"""The safetensors of a checkpoint folder: one file, or shards with an index."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import BFLOAT16, Array
from edge_llm.llm.checkpoints.detached import detached, detached_bytes
from edge_llm.llm.checkpoints.files import read_json_object, refuse_pointer
from edge_llm.llm.config import shorten

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

Shape = tuple[int, ...]
_COMPARED = 2**24  # bytes
_PARTIAL = (
    "its size is not what its header says: it was cut short, by a download that broke off perhaps; "
    "fetch it again"
)

# The format's name of a dtype -> bits of an element.
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
# Those that are read.
NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "F8_E4M3": np.dtype(np.uint8),  # its codes
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as its file's header describes it: ``dtype`` in the format's own words (F32), and
    ``offset`` in bytes from the file's start."""

    path: Path
    shape: Shape
    dtype: str
    offset: int


@dataclass(frozen=True, slots=True)
class Tensors:
    """The tensors of a folder by name; ``problems`` has a line for each that the index names and
    the shards lack, and for each that two shards hold with different values; ``notes`` say which of
    several files were taken."""

    entries: Mapping[str, Entry]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """Return the files, sorted."""
        return sorted({entry.path for entry in self.entries.values()})

    def read(self, name: str) -> Array:
        """Return a copy of one tensor, read now.

        Raises:
            CheckpointError: it can no longer be read.
        """
        return detached(self.view(name))

    def view(self, name: str) -> Array:
        """Return one tensor as a read-only view of its file, see `detached`.

        Raises:
            CheckpointError: it can no longer be read.
        """
        entry = self.entries[name]
        dtype = NUMPY_DTYPES.get(entry.dtype)
        if dtype is None:
            expected = ", ".join(NUMPY_DTYPES)
            raise CheckpointError(
                f"{entry.path}: {shorten(name)}: got {entry.dtype}, expected one of {expected}"
            )
        size = math.prod(entry.shape) * dtype.itemsize
        try:
            data = np.memmap(entry.path, np.uint8, "r")[entry.offset : entry.offset + size]
        except (OSError, ValueError) as exc:  # ValueError: an empty file
            raise CheckpointError(f"{entry.path}: {name} cannot be read: {exc}") from exc
        if data.size < size:
            raise CheckpointError(f"{entry.path}: {name} cannot be read: the file was cut short")
        return data.view(dtype).reshape(entry.shape)

    def metadata(self) -> dict[str, str]:
        """Return the headers' strings, of all files together.

        Raises:
            CheckpointError: a file can no longer be read.
        """
        merged: dict[str, str] = {}
        for path in self.paths:
            with _open(path) as file:
                merged |= file.metadata() or {}
        return merged


def open_tensors(path: Path) -> Tensors:
    """Return the tensors of a checkpoint folder; reads headers alone.

    Raises:
        CheckpointError: no weights, a missing or damaged file.
    """
    files, notes = _tensor_files(path)
    return _entries(files, notes)


def open_tensor_file(path: Path) -> Tensors:
    """Return the tensors of one file; reads its header alone.

    Raises:
        CheckpointError: it is damaged or missing.
    """
    return _entries(dict.fromkeys(_names(path), path))


def _tensor_files(path: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the file that holds each tensor, and what is to be said about the choice."""
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
        if (path / WHOLE).is_file() and WHOLE not in shards:
            return dict.fromkeys(_names(path / WHOLE), path / WHOLE), (
                f"weights: those of {WHOLE}; {INDEX} beside it names other files, which are not "
                "read",
            )
        missing = [str(shard) for shard in shards.values() if not shard.is_file()]
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            raise CheckpointError(
                f"{path / INDEX} names files that are missing: {missing[:10]}{more}"
            )
        return {name: shards[file] for name, file in weight_map.items()}, ()
    if (path / WHOLE).is_file():
        return dict.fromkeys(_names(path / WHOLE), path / WHOLE), ()
    pickled = sorted(entry.name for entry in path.glob("*") if entry.suffix in (".bin", ".pth"))
    got = f"; got {', '.join(pickled)}, which is never unpickled" if pickled else ""
    raise CheckpointError(f"{path} has no weights: expected {WHOLE} or {INDEX}{got}")


def _entries(files: Mapping[str, Path], notes: tuple[str, ...] = ()) -> Tensors:
    """Return the tensors of ``files``: each from the file that is named for it, and those that an
    index leaves out. One that lies in another file too must be the same there.

    Raises:
        CheckpointError: a damaged file.
    """
    holdings = {path: _file_entries(path) for path in dict.fromkeys(files.values())}
    entries = {name: holdings[path][name] for name, path in files.items() if name in holdings[path]}
    problems: list[str] = []
    for path, held in holdings.items():
        for name, entry in held.items():
            first = entries.setdefault(name, entry)
            if first.path != path and not _same(first, entry):
                problems.append(
                    f"stored twice: {shorten(name)} in {first.path.name} and {path.name}, "
                    "with different values"
                )
    problems += [
        f"missing: {shorten(name)} in {path.name}, where the index puts it"
        for name, path in files.items()
        if name not in entries
    ]
    return Tensors(entries, tuple(problems), notes)


def _same(one: Entry, other: Entry) -> bool:
    """Return whether two tensors hold the same bytes, which are read a piece at a time."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    size = math.prod(one.shape) * BITS[one.dtype] // 8
    first, second = (np.memmap(e.path, np.uint8, "r")[e.offset :][:size] for e in (one, other))
    return all(
        np.array_equal(
            detached_bytes(first[at : at + _COMPARED]), detached_bytes(second[at : at + _COMPARED])
        )
        for at in range(0, size, _COMPARED)
    )


def _file_entries(path: Path) -> dict[str, Entry]:
    """Return the tensors of one file. The library has checked that they follow each other from the
    end of the header to the end of the file."""
    entries: dict[str, Entry] = {}
    with _open(path) as file, path.open("rb") as raw:
        offset = 8 + int.from_bytes(raw.read(8), "little")
        for name in file.offset_keys():
            view = file.get_slice(name)
            shape, dtype = tuple(view.get_shape()), view.get_dtype()
            if dtype not in BITS:
                raise CheckpointError(f"{path}: {shorten(name)}: got an unknown dtype {dtype}")
            entries[name] = Entry(path, shape, dtype, offset)
            offset += math.prod(shape) * BITS[dtype] // 8
    return entries


def _names(path: Path) -> Iterable[str]:
    with _open(path) as file:
        return list(file.keys())


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as exc:
        refuse_pointer(path)
        partial = "not fully covered" in str(exc)  # by the tensors that the header lists
        raise CheckpointError(
            f"{path} is not a {'whole ' if partial else ''}safetensors file: {exc}",
            hint=_PARTIAL if partial else None,
        ) from exc
