"""PyTorch's ``.pth`` files, read without unpickling them.

A file that ``torch.save`` wrote is a zip archive, nothing compressed: ``NAME/data.pkl`` describes
the tensors, ``NAME/data/KEY`` holds each one's bytes. The description is a pickle, a program for a
small stack machine that may call anything. Here a machine that knows only what a dictionary of
tensors needs runs it: it calls nothing, and a name beyond the few below ends the reading.
"""

from __future__ import annotations

import math
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import BFLOAT16, Array, name_of
from edge_llm.llm.checkpoints.detached import detached_bytes
from edge_llm.llm.config import is_integer, shorten

# Public files describe some thousand tensors in about 100 bytes each.
MAX_DIRECTORY = 2**22
MAX_PICKLE = 2**22
MAX_RANK = 4

STORAGES: Mapping[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype(np.float32),
    "torch HalfStorage": np.dtype(np.float16),
    "torch BFloat16Storage": BFLOAT16,
    "torch CharStorage": np.dtype(np.int8),  # of quantized checkpoints, like those below
    "torch IntStorage": np.dtype(np.int32),
    "torch LongStorage": np.dtype(np.int64),
}
TENSOR, PARAMETER, ORDERED_DICT = (
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A contiguous tensor; ``offset`` is in bytes from the file's start."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class TorchFile:
    """A checked file. ``data`` is the whole file, mapped: [bytes] uint8."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    data: NDArray[np.uint8]

    def bytes_of(self, name: str) -> NDArray[np.uint8]:
        """Return a tensor's bytes, as a view of the file."""
        entry = self.tensors[name]
        size = math.prod(entry.shape) * entry.dtype.itemsize
        return self.data[entry.offset : entry.offset + size]

    def tensor(self, name: str) -> Array:
        """Return a copy of one tensor."""
        entry = self.tensors[name]
        return detached_bytes(self.bytes_of(name)).view(entry.dtype).reshape(entry.shape)


def read_torch_file(path: Path) -> TorchFile:
    """Read the descriptions of a file's tensors and check each against the file's size; the
    tensors' bytes are not touched.

    Raises:
        CheckpointError: unreadable, damaged, in PyTorch's older format, or holding anything but
            contiguous tensors by name, of floats (float32, float16, bfloat16) or signed integers,
            or a dictionary of those called "model".
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        with path.open("rb") as file, zipfile.ZipFile(_Bounded(file)) as archive:
            records = {info.filename: info for info in archive.infolist()}
    except (OSError, ValueError, RuntimeError, struct.error, zipfile.BadZipFile) as exc:
        raise CheckpointError(
            f"{path} is not a zip archive as torch.save writes it: {shorten(str(exc))}"
        ) from exc
    extents = {name: _extent(path, data, info) for name, info in records.items()}
    pickles = [name for name in extents if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(f"{path} has {len(pickles)} records named data.pkl, expected one")
    folder = pickles[0].removesuffix("data.pkl")
    order = extents.get(f"{folder}byteorder")
    if order is not None and bytes(data[order]) != b"little":
        raise CheckpointError(f"{path}: byteorder is not 'little', the only one supported")
    where = extents[pickles[0]]
    if where.stop - where.start > MAX_PICKLE:
        raise CheckpointError(
            f"{path}: data.pkl has {where.stop - where.start} bytes, expected at most {MAX_PICKLE}"
        )
    storages = {
        name.removeprefix(f"{folder}data/"): extent
        for name, extent in extents.items()
        if name.startswith(f"{folder}data/")
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in damaged names
            content = _Machine(storages).run(bytes(data[where]))
    except (ValueError, IndexError, KeyError) as exc:  # a pickle that ends or jumps early
        raise CheckpointError(f"{path}: data.pkl is damaged: {shorten(str(exc))}") from exc
    except CheckpointError as exc:
        raise CheckpointError(f"{path}: {exc}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary")
    inner = content.get("model")
    content = inner if isinstance(inner, dict) else content
    for name, value in content.items():
        if not isinstance(value, TensorEntry):
            raise CheckpointError(
                f"{path}: {shorten(name)}: got a {type(value).__name__}, expected a tensor"
            )
    return TorchFile(path, content, data)


class _Bounded:
    """A file for ``zipfile``, which reads directories as long as they claim to be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(MAX_DIRECTORY + 1 if size < 0 else min(size, MAX_DIRECTORY + 1))
        if len(data) > MAX_DIRECTORY:
            raise ValueError(f"a directory of more than {MAX_DIRECTORY} bytes")
        return data


def _extent(path: Path, data: NDArray[np.uint8], info: zipfile.ZipInfo) -> slice:
    """Return where a record's bytes are, from its own header and the directory."""
    name, at = shorten(info.filename), info.header_offset
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise CheckpointError(f"{path}: {name} is compressed or encrypted, expected plain bytes")
    header = bytes(data[at : at + _LOCAL_HEADER.size]) if at >= 0 else b""
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"{path}: {name} has no header at byte {at}")
    _, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    start = at + _LOCAL_HEADER.size + name_size + extra_size
    if start + info.file_size > len(data):
        raise CheckpointError(
            f"{path}: {name} ends at byte {start + info.file_size}, the file at {len(data)}"
        )
    return slice(start, start + info.file_size)


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: np.dtype[Any]
    size: int  # elements
    offset: int  # bytes from the file's start


class _Machine:
    """Runs the opcodes that ``torch.save`` uses for a dictionary of tensors.

    Values are shared and never copied or compared, so that time and memory are linear in the
    pickle's size."""

    def __init__(self, storages: Mapping[str, slice]) -> None:
        self._storages = storages
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self, raw: bytes) -> object:
        """Return the value that the pickle describes.

        Raises:
            CheckpointError: an opcode, a name or a value that does not belong.
            ValueError, IndexError, KeyError: bytes that are no pickle.
        """
        for opcode, argument, _ in pickletools.genops(raw):
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, opcode: str, argument: object) -> None:
        stack = self._stack
        match opcode:
            case "PROTO" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(int(opcode[-1]))))
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "SETITEM":
                self._set(self._pop(2))
            case "SETITEMS":
                self._set(self._pop_to_mark())
            case "BINPUT" | "LONG_BINPUT":
                assert isinstance(argument, int)
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                assert isinstance(argument, int)
                stack.append(self._memo[argument])
            case "GLOBAL":
                if argument not in (*STORAGES, TENSOR, PARAMETER, ORDERED_DICT):
                    raise CheckpointError(
                        f"data.pkl asks for {shorten(argument)}, which is not looked up: "
                        "expected a dictionary of tensors of floats or of signed integers"
                    )
                stack.append(_Global(str(argument)))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                stack.append(self._call(*self._pop(2)))
            case "BUILD":
                stack.pop()  # attributes of a state dict: versions of modules
            case _:
                raise CheckpointError(
                    f"data.pkl holds opcode {opcode}, expected those of a dictionary of tensors"
                )

    def _pop(self, count: int) -> list[object]:
        if len(self._stack) < count:
            raise IndexError("an empty stack")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _pop_to_mark(self) -> list[object]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _set(self, items: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise CheckpointError("data.pkl is damaged: items without a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise CheckpointError(f"data.pkl has a {type(key).__name__} as a key, not a name")
            target[key] = value

    def _storage(self, identifier: object) -> _Storage:
        match identifier:
            case ("storage", _Global(kind), str(key), str(), int(size)) if kind in STORAGES:
                extent, dtype = self._storages.get(key), STORAGES[kind]
                if extent is None:
                    raise CheckpointError(f"storage {shorten(key)} is missing")
                got = extent.stop - extent.start
                if got != size * dtype.itemsize:
                    raise CheckpointError(
                        f"storage {shorten(key)} has {got} bytes, expected "
                        f"{shorten(size)} elements of {name_of(dtype)}"
                    )
                return _Storage(dtype, size, extent.start)
            case _:
                raise CheckpointError("data.pkl is damaged: a storage that is not described")

    def _call(self, function: object, arguments: object) -> object:
        match function, arguments:
            case _Global(name), () if name == ORDERED_DICT:
                return {}
            case _Global(name), (TensorEntry() as entry, *_) if name == PARAMETER:
                return entry
            case (
                _Global(name),
                (_Storage() as storage, offset, tuple(shape), tuple(strides), *_),
            ) if name == TENSOR:
                return _entry(storage, offset, shape, strides)
            case _:
                raise CheckpointError("data.pkl is damaged: a value that is not described")


def _entry(
    storage: _Storage, offset: object, shape: tuple[object, ...], strides: tuple[object, ...]
) -> TensorEntry:
    """Return a tensor of the storage, checked to be contiguous and inside."""
    sizes = [size for size in shape if is_integer(size) and 0 < size <= storage.size]
    if len(sizes) != len(shape) or len(shape) != len(strides) or len(shape) > MAX_RANK:
        raise CheckpointError("a tensor's shape does not fit its storage")
    expected = 1
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            raise CheckpointError(f"a tensor of shape {sizes} is not contiguous")
        expected *= size
    if not is_integer(offset) or not 0 <= offset <= storage.size - expected:
        raise CheckpointError(f"a tensor of shape {sizes} reaches beyond its storage")
    return TensorEntry(
        storage.dtype, tuple(sizes), storage.offset + offset * storage.dtype.itemsize
    )
