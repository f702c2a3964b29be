"""Taking files of each container format apart and together again, so that a change goes where a
reader looks and not into what guards the container: lengths, checksums and positions are made
right again."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LENGTH_BYTES = 8


# --- safetensors ----------------------------------------------------------------------------------


def split_safetensors(data: bytes) -> tuple[Any, bytes]:
    """The header as JSON, and the bytes of the tensors."""
    end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    return json.loads(data[LENGTH_BYTES:end]), data[end:]


def join_safetensors(header: bytes, tensors: bytes) -> bytes:
    return len(header).to_bytes(LENGTH_BYTES, "little") + header + tensors


# --- GGUF -----------------------------------------------------------------------------------------

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS |= {12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass
class Gguf:
    """``metadata``: [key, type, type of an array's items or None, value]; ``tensors``: [name,
    dimensions, type, offset]; strings are bytes."""

    version: int
    metadata: list[list[Any]]
    tensors: list[list[Any]]
    data: bytes


def split_gguf(raw: bytes) -> Gguf:
    """A whole, undamaged file with the usual alignment."""
    stream = io.BytesIO(raw)

    def number(code: str) -> Any:
        return struct.unpack(f"<{code}", stream.read(struct.calcsize(code)))[0]

    def string() -> bytes:
        return stream.read(number("Q"))

    def value(kind: int) -> Any:
        return string() if kind == _STRING else number(_SCALARS[kind])

    stream.read(4)
    version, tensor_count, metadata_count = number("I"), number("Q"), number("Q")
    metadata = []
    for _ in range(metadata_count):
        key, kind, of_items = string(), number("I"), None
        if kind == _ARRAY:
            of_items, count = number("I"), number("Q")
            metadata.append([key, kind, of_items, [value(of_items) for _ in range(count)]])
        else:
            metadata.append([key, kind, of_items, value(kind)])
    tensors = []
    for _ in range(tensor_count):
        name, rank = string(), number("I")
        tensors.append([name, [number("Q") for _ in range(rank)], number("I"), number("Q")])
    start = -(-stream.tell() // 32) * 32
    return Gguf(version, metadata, tensors, raw[start:])


def join_gguf(file: Gguf) -> bytes:
    """Integers are cut to what their field holds."""
    parts = [b"GGUF", _number("I", file.version)]
    parts += [_number("Q", len(file.tensors)), _number("Q", len(file.metadata))]
    for key, kind, of_items, value in file.metadata:
        parts += [_gguf_string(key), _number("I", kind)]
        if isinstance(value, list):
            parts += [_number("I", of_items or 0), _number("Q", len(value))]
            parts += [_gguf_value(of_items or 0, item) for item in value]
        else:
            parts.append(_gguf_value(kind, value))
    for name, dimensions, kind, offset in file.tensors:
        parts += [_gguf_string(name), _number("I", len(dimensions))]
        parts += [_number("Q", size) for size in dimensions]
        parts += [_number("I", kind), _number("Q", offset)]
    head = b"".join(parts)
    return head + b"\0" * (-len(head) % 32) + file.data


def _gguf_string(text: bytes) -> bytes:
    return _number("Q", len(text)) + text


def _gguf_value(kind: int, value: Any) -> bytes:
    """What does not fit its type is written as far as it goes."""
    if isinstance(value, bytes):
        return _gguf_string(value)
    return _number(_SCALARS.get(kind, "I"), value)


def _number(code: str, value: Any) -> bytes:
    if code in "fd":
        try:
            return struct.pack(f"<{code}", value)
        except OverflowError:
            return struct.pack(f"<{code}", float("inf"))
    size = struct.calcsize(code)
    finite = isinstance(value, int) or abs(value) < 2.0**64
    return (int(value) % (1 << 8 * size) if finite else 0).to_bytes(size, "little")


# --- protocol buffers -----------------------------------------------------------------------------

Field = list[Any]  # [number, kind, value]: an integer, bytes, or a list of fields


def split_protobuf(data: bytes, deep: bool = True) -> list[Field]:
    """The fields of an undamaged message; those of messages in it as lists where ``deep``."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value: Any
            value, at = _read_varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                size, at = _read_varint(data, at)
            value, at = data[at : at + size], at + size
            if kind == 2 and deep:
                value = split_protobuf(value, deep=False)
        fields.append([number, kind, value])
    return fields


def join_protobuf(fields: Iterable[Field]) -> bytes:
    parts = []
    for number, kind, value in fields:
        parts.append(varint(number << 3 | kind))
        if isinstance(value, list):
            value = join_protobuf(value)
        if isinstance(value, int):
            parts.append(varint(value))
        else:
            parts += [varint(len(value)), value] if kind == 2 else [value]
    return b"".join(parts)


def varint(value: int) -> bytes:
    """Seven bits to the byte, low ones first, of the value's lowest 70 bits."""
    value %= 2**70
    data = b""
    while value >= 0x80:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


# --- what torch.save writes -----------------------------------------------------------------------


def split_zip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def join_zip(records: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names twice
        for name, data in records:
            archive.writestr(zipfile.ZipInfo(name or "empty"), data, method)
    return stream.getvalue()


def split_pickle(data: bytes) -> list[bytes]:
    """The opcodes with their arguments."""
    starts = [at for _, _, at in pickletools.genops(data) if at is not None]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
