"""Hand-made ``.pth`` files: pickles that call, archives that lie, tensors that reach too far."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.meta.torch_file import MAX_DIRECTORY, MAX_PICKLE, read_torch_file

FLOATS = b"ctorch\nFloatStorage\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def many(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def storage(key: str = "0", size: int = 6, kind: bytes = FLOATS) -> bytes:
    return many(text("storage"), kind, text(key), text("cpu"), number(size)) + b"Q"


def tensor(
    stored: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    sizes, steps = (many(*map(number, values)) for values in (shape, strides))
    return REBUILD + many(stored, number(offset), sizes, steps, b"\x89", b"N") + b"R"


def one(value: bytes, name: bytes = text("weight")) -> bytes:
    """A pickle of a dictionary with one item."""
    return b"\x80\x02}" + name + value + b"s."


GOOD = one(tensor(storage(), (2, 3), (3, 1)))


def archive(
    content: bytes,
    *,
    data: bytes = bytes(24),
    more: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        records = {"a/data.pkl": content, "a/byteorder": b"little", "a/data/0": data}
        for name, raw in (records | (more or {})).items():
            file.writestr(name, raw)
    return buffer.getvalue()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Calls:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def replaced_in_directory(raw: bytes, name: bytes, field: int, value: bytes) -> bytes:
    """Overwrites a field of a record's entry in the central directory."""
    at = raw.rindex(name) - 46
    assert raw[at : at + 4] == b"PK\x01\x02"
    return raw[: at + field] + value + raw[at + field + len(value) :]


DEEP = b"\x80\x02)" + b"\x85" * 100_000 + b"Q."
DOUBLING = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 10_000 + b"Q."

FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a zip archive as torch.save writes it"),
    "no zip": (b"\x80\x02}q\x00." * 100, "is not a zip archive"),
    "a tar, PyTorch's first format": (b"storages" + bytes(1016), "is not a zip archive"),
    "cut short": (archive(GOOD)[:-30], "is not a zip archive"),
    "compressed": (
        archive(GOOD, data=bytes(2**20), compression=zipfile.ZIP_DEFLATED),
        "'a/data.pkl' is compressed or encrypted",
    ),
    "encrypted": (
        replaced_in_directory(archive(GOOD), b"a/data.pkl", 8, b"\x01"),
        "'a/data.pkl' is compressed or encrypted",
    ),
    "a size beyond the file": (
        replaced_in_directory(archive(GOOD), b"a/data/0", 24, struct.pack("<I", 2**31)),
        "'a/data/0' ends at byte 2147483",
    ),
    "a header elsewhere": (
        replaced_in_directory(archive(GOOD), b"a/data/0", 42, struct.pack("<I", 3)),
        "'a/data/0' has no header at byte 3",
    ),
    "a header beyond the file": (
        replaced_in_directory(archive(GOOD), b"a/data/0", 42, struct.pack("<I", 2**31)),
        "'a/data/0' has no header at byte 2147483648",
    ),
    "no pickle": (archive(GOOD).replace(b"data.pkl", b"data.pk_"), "has 0 records"),
    "two pickles": (archive(GOOD, more={"b/data.pkl": GOOD}), "has 2 records named data.pkl"),
    "big-endian": (archive(GOOD, more={"a/byteorder": b"big"}), "byteorder is not 'little'"),
    "a large pickle": (archive(bytes(MAX_PICKLE + 1)), f"expected at most {MAX_PICKLE}"),
    "an empty pickle": (archive(b""), "data.pkl is damaged"),
    "a pickle cut short": (archive(GOOD[:-20]), "data.pkl is damaged"),
    "a call": (archive(pickle.dumps(Calls("touch called"), 2)), "data.pkl asks for 'posix system'"),
    "a call by name on the stack": (
        archive(b"\x80\x04\x8c\x02os\x8c\x06system\x93."),
        "data.pkl holds opcode SHORT_BINUNICODE",
    ),
    "a name with an escape": (
        archive(b"\x80\x02ctorch\nFloat\\oStorage\n."),
        "data.pkl asks for 'torch Float\\\\oStorage'",
    ),
    "an object": (saved({"weight": Path("x")}), "data.pkl asks for 'pathlib PosixPath'"),
    "a whole module": (saved(torch.nn.Linear(1, 1)), "data.pkl asks for 'torch.nn.modules.linear"),
    "allocation by a call": (
        archive(b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."),
        "data.pkl asks for 'builtins bytearray'",
    ),
    "a list": (saved([torch.ones(2)]), "data.pkl holds opcode EMPTY_LIST"),
    "no dictionary": (archive(b"\x80\x02)."), "holds a tuple, expected a dictionary"),
    "a number as a value": (saved({"a": 3}), "'a': got a int, expected a tensor"),
    "a dictionary as a value": (saved({"other": {}}), "'other': got a dict, expected a tensor"),
    "a number as a name": (saved({3: torch.ones(2)}), "data.pkl has a int as a key"),
    "another dtype": (
        saved({"a": torch.ones(2, dtype=torch.int16)}),
        "asks for 'torch ShortStorage'",
    ),
    "a sparse tensor": (saved({"a": torch.eye(2).to_sparse()}), "data.pkl asks for"),
    "a memo that is not there": (archive(b"\x80\x02h\x07."), "data.pkl is damaged"),
    "an empty stack": (archive(b"\x80\x02R."), "data.pkl is damaged"),
    "no mark": (archive(b"\x80\x02}t."), "data.pkl is damaged"),
    "items without a dictionary": (archive(b"\x80\x02)(K\x01u."), "items without a dictionary"),
    "tuples within tuples": (archive(DEEP), "a storage that is not described"),
    "tuples that double": (archive(DOUBLING), "a storage that is not described"),
    "a storage that is not there": (
        archive(one(tensor(storage("7"), (2, 3), (3, 1)))),
        "storage '7' is missing",
    ),
    "a path as a storage": (
        archive(one(tensor(storage("../data.pkl"), (2, 3), (3, 1)))),
        "storage '../data.pkl' is missing",
    ),
    "a storage of another size": (
        archive(one(tensor(storage(size=2**62), (2, 3), (3, 1)))),
        "storage '0' has 24 bytes, expected 4611686018427387904 elements",
    ),
    "a negative size": (
        archive(one(tensor(storage(size=-6), (2, 3), (3, 1)))),
        "storage '0' has 24 bytes, expected -6 elements",
    ),
    "a shape beyond the storage": (
        archive(one(tensor(storage(), (3, 3), (3, 1)))),
        "a tensor of shape [3, 3] reaches beyond its storage",
    ),
    "an offset beyond the storage": (
        archive(one(tensor(storage(), (2, 3), (3, 1), offset=1))),
        "a tensor of shape [2, 3] reaches beyond its storage",
    ),
    "a negative offset": (
        archive(one(tensor(storage(), (1, 3), (3, 1), offset=-1))),
        "reaches beyond its storage",
    ),
    "strides beyond the storage": (
        archive(one(tensor(storage(), (2, 3), (2**40, 1)))),
        "a tensor of shape [2, 3] is not contiguous",
    ),
    "a transposed tensor": (
        saved({"a": torch.ones(2, 3).T}),
        "a tensor of shape [3, 2] is not contiguous",
    ),
    "an expanded tensor": (
        saved({"a": torch.ones(1).expand(4)}),
        "a tensor's shape does not fit its storage",
    ),
    "no elements": (saved({"a": torch.ones(0)}), "a tensor's shape does not fit its storage"),
    "a negative shape": (
        archive(one(tensor(storage(), (-2, -3), (3, 1)))),
        "a tensor's shape does not fit its storage",
    ),
    "a huge shape": (
        archive(one(tensor(storage(), (2**40, 2**40), (2**40, 1)))),
        "a tensor's shape does not fit its storage",
    ),
    "ranks that differ": (
        archive(one(tensor(storage(), (2, 3), (3,)))),
        "a tensor's shape does not fit its storage",
    ),
    "rank 5": (
        saved({"a": torch.ones(1, 1, 1, 1, 2)}),
        "a tensor's shape does not fit its storage",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_what_is_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw, message = FILES[case]
    path = tmp_path / "consolidated.00.pth"
    path.write_bytes(raw)
    tracemalloc.start()
    with pytest.raises(CheckpointError) as error:
        read_torch_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == [path]
    assert peak < 64 * 2**20


def test_the_good_one_opens(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(archive(GOOD, data=struct.pack("<6f", *range(6))))
    assert read_torch_file(path).tensor("weight").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_directory_as_large_as_it_claims(tmp_path: Path) -> None:
    """zipfile reads the directory at once, whatever its size."""
    raw = archive(GOOD)
    start = raw.index(b"PK\x01\x02")
    end = raw.index(b"PK\x05\x06")
    filler = bytes(MAX_DIRECTORY)
    size = struct.pack("<I", end - start + len(filler))
    trailer = raw[end : end + 12] + size + raw[end + 16 :]
    path = tmp_path / "file.pth"
    path.write_bytes(raw[:end] + filler + trailer)
    with pytest.raises(CheckpointError, match=f"a directory of more than {MAX_DIRECTORY} bytes"):
        read_torch_file(path)


def read_all(path: Path) -> int:
    file = read_torch_file(path)
    return sum(file.tensor(name).size for name in file.tensors)


def test_no_part_of_it_opens(tmp_path: Path) -> None:
    raw = archive(GOOD)
    path = tmp_path / "file.pth"
    for size in range(0, len(raw), 5):
        path.write_bytes(raw[:size])
        with pytest.raises(CheckpointError):
            read_all(path)


def test_any_byte_may_lie(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {"a": torch.ones(2, 3), "b": torch.ones(3).bfloat16()}
    raw, generator = saved(tensors), random.Random(0)
    path = tmp_path / "file.pth"
    opened = refused = 0
    for _ in range(1500):
        at = generator.randrange(len(raw))
        path.write_bytes(raw[:at] + bytes([generator.randrange(256)]) + raw[at + 1 :])
        try:
            read_all(path)
            opened += 1
        except CheckpointError:
            refused += 1
    assert min(opened, refused) > 100
