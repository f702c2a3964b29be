"""The GGUF container: metadata and tensor directory, every size checked before it is trusted.

Layout (little-endian; the GGUF document of the ggml project): magic, version u32, tensor count u64,
metadata count u64; metadata as (string key, u32 type, value); tensors as (string name, u32 rank,
u64 dimensions innermost first, u32 type, u64 offset into the data); padding to the alignment; data.
A string is a u64 length and UTF-8 bytes; an array is a u32 type, a u64 count and its values.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.files import refuse_pointer
from edge_llm.llm.config import shorten

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

# Far above every public file; what lies beyond is damage, and would cost memory.
MAX_ENTRIES = 2**17
MAX_ELEMENTS = 2**22
MAX_STRING = 2**24
MAX_RANK = 4
MAX_HEAD = 2**26  # bytes of metadata and directory together; the largest public ones have 2**24

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_FLOAT32, _STRING, _ARRAY = 6, 8, 9


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """``shape`` is outermost first, ``type`` ggml's number, ``offset`` from the file's start."""

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """A parsed file. ``data`` is the whole file, mapped: [bytes] uint8."""

    path: Path
    metadata: Mapping[str, object]
    tensors: Mapping[str, TensorEntry]
    data: NDArray[np.uint8]


def read_gguf_file(path: Path) -> GGUFFile:
    """Parses metadata and tensor directory; tensor bytes are not touched, nor are their extents
    checked: those depend on the types that the caller knows.

    Raises:
        CheckpointError: unreadable, truncated, or not a GGUF file of a known version.
    """
    try:
        if path.stat().st_size == 0:  # which cannot be mapped
            raise CheckpointError(f"{path} is empty", hint="fetch the file again")
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{path} cannot be mapped: {exc}") from exc
    cursor = _Cursor(path, data.data)
    if bytes(cursor.take(4)) != MAGIC:
        refuse_pointer(path)
        raise CheckpointError(f"{path} is not a GGUF file: it does not start with {MAGIC!r}")
    version = cursor.integer("I")
    if version not in VERSIONS:
        expected = " or ".join(map(str, VERSIONS))
        raise CheckpointError(f"{path}: got GGUF version {version}, expected {expected}")
    tensor_count = cursor.count("tensor count", MAX_ENTRIES, least_bytes=24)
    metadata_count = cursor.count("metadata count", MAX_ENTRIES, least_bytes=13)

    metadata: dict[str, object] = {}
    for _ in range(metadata_count):
        key = cursor.string()
        if key in metadata:
            raise cursor.error(f"metadata key {shorten(key)} twice")
        metadata[key] = cursor.value(cursor.integer("I"))

    entries: dict[str, TensorEntry] = {}
    for _ in range(tensor_count):
        name = cursor.string()
        if name in entries:
            raise cursor.error(f"tensor {shorten(name)} twice")
        rank = cursor.integer("I")
        if not 1 <= rank <= MAX_RANK:
            raise cursor.error(f"tensor {shorten(name)} of rank {rank}, expected 1 to {MAX_RANK}")
        shape = tuple(cursor.integer("Q") for _ in range(rank))[::-1]
        if 0 in shape:
            raise cursor.error(
                f"tensor {shorten(name)} of shape {list(shape)}, expected sizes above 0"
            )
        entries[name] = TensorEntry(shape, cursor.integer("I"), cursor.integer("Q"))

    alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**16 or alignment & (alignment - 1):
        raise cursor.error(
            f"{ALIGNMENT_KEY} {shorten(alignment)}, expected a power of two to 65536"
        )
    start = -(-cursor.position // alignment) * alignment
    tensors = {
        name: TensorEntry(entry.shape, entry.type, start + entry.offset)
        for name, entry in entries.items()
    }
    return GGUFFile(path, metadata, tensors, data)


class _Cursor:
    """Walks the bytes; every read is checked against what is left."""

    def __init__(self, path: Path, view: memoryview) -> None:
        self._path = path
        self._view = view
        self.position = 0

    def error(self, got: str) -> CheckpointError:
        return CheckpointError(f"{self._path} is damaged at byte {self.position}: got {got}")

    def take(self, size: int) -> memoryview:
        if self.position + size > MAX_HEAD < len(self._view):
            raise self.error(f"metadata of more than {MAX_HEAD} bytes")
        left = len(self._view) - self.position
        if size > left:
            raise self.error(f"a value of {size} bytes, expected at most the {left} left")
        self.position += size
        return self._view[self.position - size : self.position]

    def integer(self, code: str) -> int:
        value: int = struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]
        return value

    def count(self, what: str, limit: int, least_bytes: int) -> int:
        value = self.integer("Q")
        limit = min(limit, (len(self._view) - self.position) // least_bytes)
        if value > limit:
            raise self.error(f"{what} {value}, expected at most {limit}")
        return value

    def string(self) -> str:
        size = self.count("string length", MAX_STRING, least_bytes=1)
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError as exc:
            raise self.error("a string that is not UTF-8") from exc

    def value(self, kind: int) -> object:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.integer("I"))
        code = self.code(kind)
        raw = self.take(struct.calcsize(code))
        if kind == _FLOAT32:
            # The shortest decimal that gives the same float32: 1e-05, not 9.999999747378752e-06.
            return float(str(np.frombuffer(raw, "<f4")[0]))
        return struct.unpack(f"<{code}", raw)[0]

    def array(self, kind: int) -> list[object]:
        if kind == _STRING:
            count = self.count("array count", MAX_ELEMENTS, least_bytes=8)
            return [self.string() for _ in range(count)]
        code = self.code(kind)
        size = struct.calcsize(code)
        count = self.count("array count", MAX_ELEMENTS, least_bytes=size)
        raw = self.take(count * size)
        return list(struct.unpack(f"<{count}{code}", raw))

    def code(self, kind: int) -> str:
        if kind not in _SCALARS:  # arrays of arrays included: no known key holds one
            raise self.error(f"value type {kind}, expected one of {sorted(_SCALARS)}")
        return _SCALARS[kind]
