"""The container of a program file: a safetensors header over 64-byte aligned tensors.

Only bytes and offsets here; what the tensors mean is `file.py`'s business. The public safetensors
reader takes these files: alignment is bought with `_pad.N` byte tensors and a header padded with
spaces, since that format allows no holes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from edge_llm.errors import ProgramError
from edge_llm.program.strict import (
    as_int,
    as_list,
    as_object,
    as_str,
    dump_json,
    fields,
    parse_json,
)

ALIGNMENT = 64
MAX_HEADER = 32 * 1024 * 1024  # bytes
MAX_TENSORS = 65536
MAX_FILE = 2**48  # bytes
PAD_PREFIX = "_pad."
LENGTH_BYTES = 8  # of the header's own length, little-endian
PREFIX = "edge_llm."  # of every key of ours in the metadata
DIGESTS_KEY = f"{PREFIX}digests"

# The element types that programs use, and their size in bytes.
DTYPES: Mapping[str, int] = MappingProxyType({"U8": 1, "I32": 4, "F32": 4})


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor to be stored: ``dtype`` is a key of DTYPES; every size is at least 1."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored tensor and where it begins, in bytes from the end of the header."""

    spec: TensorSpec
    begin: int

    @property
    def end(self) -> int:
        return self.begin + self.spec.nbytes


@dataclass(frozen=True, slots=True)
class Header:
    """A decoded header: tensors by name (pads left out), metadata, and where the data begins."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    data_begin: int


def lay_out(specs: Iterable[TensorSpec]) -> list[Entry]:
    """Places tensors one after the other, each at a multiple of ALIGNMENT, pads in between.

    Raises:
        ValueError: a name is taken or reserved, or a size is not positive.
    """
    entries: list[Entry] = []
    names: set[str] = set()
    offset = 0
    for spec in specs:
        if spec.name in names or spec.name.startswith(PAD_PREFIX) or spec.name == "__metadata__":
            raise ValueError(f"tensor name {spec.name!r} is taken")
        if not spec.shape or min(spec.shape) < 1:
            raise ValueError(f"tensor {spec.name!r} has shape {list(spec.shape)}")
        names.add(spec.name)
        if gap := -offset % ALIGNMENT:
            entries.append(Entry(TensorSpec(f"{PAD_PREFIX}{len(entries)}", "U8", (gap,)), offset))
            offset += gap
        entries.append(Entry(spec, offset))
        offset += spec.nbytes
    return entries


def encode_header(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """The header's JSON, without its length and its padding."""
    record: dict[str, Any] = {"__metadata__": dict(metadata)}
    for entry in entries:
        record[entry.spec.name] = {
            "dtype": entry.spec.dtype,
            "shape": list(entry.spec.shape),
            "data_offsets": [entry.begin, entry.end],
        }
    return dump_json(record).encode()


def pad_header(text: bytes, size: int) -> bytes:
    """Length and header in exactly ``size`` bytes (a multiple of ALIGNMENT, at least the text)."""
    length = size - LENGTH_BYTES
    return length.to_bytes(LENGTH_BYTES, "little") + text.ljust(length, b" ")


def decode_header(head: bytes, file_bytes: int) -> Header:
    """Decodes and checks the header of a file of ``file_bytes`` bytes that starts with ``head``
    (`header_bytes` of them).

    Raises:
        ProgramError: the header is damaged or hostile, or does not describe this file.
    """
    try:
        text = head[LENGTH_BYTES:].decode()
    except UnicodeDecodeError as exc:
        raise ProgramError("header: not UTF-8") from exc
    record = as_object(parse_json(text, "header"), "header")
    if len(record) > MAX_TENSORS + 1:
        raise ProgramError(f"header: {len(record)} tensors, at most {MAX_TENSORS} are allowed")
    metadata = as_object(record.pop("__metadata__", None), "header.__metadata__")
    for key, value in metadata.items():
        as_str(value, f"header.__metadata__[{key!r}]", limit=MAX_HEADER)
    entries = [_entry(name, value) for name, value in record.items()]
    _check_layout(entries, file_bytes - len(head))
    tensors = {e.spec.name: e for e in entries if not e.spec.name.startswith(PAD_PREFIX)}
    return Header(MappingProxyType(tensors), MappingProxyType(metadata), len(head))


def header_bytes(start: bytes, file_bytes: int) -> int:
    """Length of header and length field together, from the first bytes of a file.

    Raises:
        ProgramError: this is no program file, or it ends inside the header.
    """
    if len(start) < LENGTH_BYTES + 1 or start[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        raise ProgramError("not a program file (no safetensors header)")
    size = int.from_bytes(start[:LENGTH_BYTES], "little") + LENGTH_BYTES
    if size > MAX_HEADER:
        raise ProgramError(f"header: {size} bytes, at most {MAX_HEADER} are allowed")
    if size > file_bytes:
        raise ProgramError(f"truncated: the header has {size} bytes, the file {file_bytes}")
    if size % ALIGNMENT:
        raise ProgramError(f"header: ends at {size}, which is no multiple of {ALIGNMENT}")
    return size


def documents_digest(metadata: Mapping[str, str]) -> str:
    """SHA-256 of all metadata but the digests: for each key in order of its code points, key and
    value in UTF-8, each after its length as 8 little-endian bytes."""
    digest = hashlib.sha256()
    for key in sorted(metadata):
        if key != DIGESTS_KEY:
            for part in (key.encode(), metadata[key].encode()):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
    return digest.hexdigest()


def _entry(name: str, value: Any) -> Entry:
    path = f"tensor {name!r}"
    record = fields(value, path, ("dtype", "shape", "data_offsets"))
    dtype = as_str(record["dtype"], f"{path}: dtype")
    if dtype not in DTYPES:
        raise ProgramError(f"{path}: dtype {dtype!r}, expected one of {', '.join(DTYPES)}")

    def size(value: Any, path: str) -> int:
        return as_int(value, path, 1, MAX_FILE)

    def offset(value: Any, path: str) -> int:
        return as_int(value, path, 0, MAX_FILE)

    shape = as_list(record["shape"], f"{path}: shape", size, limit=8)
    if not shape:
        raise ProgramError(f"{path}: shape is empty")
    offsets = as_list(record["data_offsets"], f"{path}: data_offsets", offset, limit=2)
    entry = Entry(TensorSpec(name, dtype, shape), offsets[0] if offsets else 0)
    if offsets != (entry.begin, entry.end):
        raise ProgramError(
            f"{path}: data_offsets {list(offsets)} do not hold {entry.spec.nbytes} bytes"
        )
    return entry


def _check_layout(entries: list[Entry], data_bytes: int) -> None:
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.begin):
        path = f"tensor {entry.spec.name!r}"
        if entry.begin != end:
            problem = "overlaps the one before it" if entry.begin < end else "leaves a hole before"
            raise ProgramError(f"{path}: {problem}")
        end = entry.end
        if entry.spec.name.startswith(PAD_PREFIX):
            if entry.spec.nbytes >= ALIGNMENT:
                raise ProgramError(f"{path}: {entry.spec.nbytes} bytes of padding")
        elif entry.begin % ALIGNMENT:
            raise ProgramError(f"{path}: begins at {entry.begin}, no multiple of {ALIGNMENT}")
    if data_bytes < end:
        raise ProgramError(f"truncated: the tensors have {end} bytes, the file holds {data_bytes}")
    if data_bytes > end:
        raise ProgramError(f"{data_bytes - end} bytes follow the last tensor")
