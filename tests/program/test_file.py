from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from edge_llm.errors import ExportError, ProgramError
from edge_llm.program.container import TensorSpec, documents_digest
from edge_llm.program.file import Program
from edge_llm.program.version import FORMAT
from edge_llm.program.writer import ProgramWriter

Record = dict[str, Any]


def test_round_trip(parts: Any, program_path: Path) -> None:
    with Program.open(program_path) as program:
        assert program.plan == parts.plan
        assert program.documents == parts.documents
        assert program.file_bytes == program_path.stat().st_size
        assert program.tokenizer_json == b'{"version":"1.0"}'
        for spec, data in parts.tensors.items():
            view = program.tensor(spec.name)
            assert np.array_equal(view, data)
            assert view.dtype == data.dtype
            assert not view.flags.writeable
        for weight in program.plan.weights:
            assert program.weight_data(weight).ctypes.data % 64 == 0
        golden = program.golden
        assert golden is not None
        assert golden.top_logits.dtype == np.float32
        program.verify_digests()


def test_arrays_outlive_the_program(parts: Any, program_path: Path) -> None:
    with Program.open(program_path) as program:
        view = program.tensor("head")
    program_path.unlink()
    assert np.array_equal(view, next(d for s, d in parts.tensors.items() if s.name == "head"))


def test_a_program_needs_no_golden_record(parts: Any, tmp_path: Path) -> None:
    tensors = {s: d for s, d in parts.tensors.items() if not s.name.startswith("golden.")}
    path = replace(parts, tensors=tensors).write(tmp_path / "plain.edge")
    with Program.open(path) as program:
        assert program.golden is None


def test_the_public_reader_opens_it(parts: Any, program_path: Path) -> None:
    with safetensors.safe_open(program_path, framework="numpy") as file:
        assert file.metadata()["edge_llm.format"] == FORMAT
        for spec, data in parts.tensors.items():
            assert np.array_equal(file.get_tensor(spec.name), data)


# --- hostile files -------------------------------------------------------------------------------


def split_file(data: bytes) -> tuple[Record, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def raw_header(text: bytes) -> bytes:
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


def join_file(record: Record, body: bytes) -> bytes:
    return raw_header(json.dumps(record, ensure_ascii=False).encode()) + body


def change_header(edit: Callable[[Record], object]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        record, body = split_file(data)
        edit(record)
        return join_file(record, body)

    return apply


def change_metadata(
    edit: Callable[[Record], object], *, digest: bool = True
) -> Callable[[bytes], bytes]:
    """Edits the metadata; with ``digest`` as a forger would, who makes the digest fit."""

    def apply(record: Record) -> None:
        metadata = record["__metadata__"]
        edit(metadata)
        digests = metadata.get("edge_llm.digests")
        if digest and digests is not None and all(isinstance(v, str) for v in metadata.values()):
            new = json.loads(digests) | {"documents": documents_digest(metadata)}
            metadata["edge_llm.digests"] = json.dumps(new)

    return change_header(apply)


def shift(name: str, begin: int, end: int) -> Callable[[bytes], bytes]:
    def apply(record: Record) -> None:
        offsets = record[name]["data_offsets"]
        record[name]["data_offsets"] = [offsets[0] + begin, offsets[1] + end]

    return change_header(apply)


def set_length(length: int) -> Callable[[bytes], bytes]:
    return lambda data: length.to_bytes(8, "little") + data[8:]


def name_a_pad(record: Record) -> None:
    """Makes a tensor of a pad, which begins where the tensor before it ends."""
    pad = next(name for name in record if name.startswith("_pad."))
    record["x"] = record.pop(pad)


def unalign(data: bytes) -> bytes:
    record, body = split_file(data)
    text = json.dumps(record).encode()
    text += b" " * (-len(text) % 64)
    return len(text).to_bytes(8, "little") + text + body


def flip(name: str) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        record, body = split_file(data)
        at = len(data) - len(body) + record[name]["data_offsets"][0]
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return apply


def duplicate_key(data: bytes) -> bytes:
    record, body = split_file(data)
    text = json.dumps(record).encode()
    again = b',"head":' + json.dumps(record["head"]).encode() + b"}"
    return raw_header(text[:-1] + again) + body


def tensor_edit(name: str, **changes: Any) -> Callable[[bytes], bytes]:
    return change_header(lambda record: record[name].update(changes))


def one_pad_too_long(data: bytes) -> bytes:
    """Every tensor 64 bytes later, behind a pad that hides 64 bytes."""
    record, body = split_file(data)
    for name, entry in record.items():
        if name != "__metadata__":
            entry["data_offsets"] = [offset + 64 for offset in entry["data_offsets"]]
    record["_pad.first"] = {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}
    return join_file(record, bytes(64) + body)


def set_metadata(key: str, text: str) -> Callable[[bytes], bytes]:
    return change_metadata(lambda m: m.update({f"edge_llm.{key}": text}))


def drop_metadata(key: str) -> Callable[[bytes], bytes]:
    return change_metadata(lambda m: m.pop(f"edge_llm.{key}"))


HOSTILE: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("empty", lambda data: b""),
    ("not a program file", lambda data: data[:7]),
    ("not a program file", lambda data: b"GGUF" + data[4:8] + b"x" * 64),
    ("not a program file", lambda data: data[:8] + b"[" + data[9:]),
    ("truncated", lambda data: data[:100]),
    ("truncated", lambda data: data[:-1]),
    ("follow the last tensor", lambda data: data + b"\0"),
    ("at most", set_length(2**63)),
    ("at most", set_length(2**32)),
    ("no multiple of 64", set_length(57)),
    ("not valid JSON", set_length(56)),
    ("no multiple of 64", unalign),
    ("not UTF-8", lambda data: data[:9] + b"\xff" + data[10:]),
    ("twice", duplicate_key),
    ("nested too deeply", lambda data: raw_header(b'{"a":' + b"[" * 100_000)),
    # tensors
    ("missing", change_header(lambda r: r.update(x={}))),
    ("expected an object", change_header(lambda r: r.update(x=[]))),
    ("unknown key", tensor_edit("head", extra=1)),
    ("dtype", tensor_edit("head", dtype="F64")),
    ("dtype", tensor_edit("head", dtype=7)),
    ("shape", tensor_edit("head", shape=[])),
    ("shape", tensor_edit("head", shape=[-1])),
    ("shape", tensor_edit("head", shape=[0])),
    ("shape", tensor_edit("head", shape=[True])),
    ("shape", tensor_edit("head", shape=[1] * 9)),
    ("do not hold", tensor_edit("head", shape=[2**40, 2**40])),
    ("do not hold", tensor_edit("head", data_offsets=[])),
    ("do not hold", tensor_edit("head", data_offsets=[64, 0])),
    ("data_offsets: 3 entries", tensor_edit("head", data_offsets=[0, 64, 64])),
    (r"data_offsets\[0\] is out of range", tensor_edit("head", data_offsets=[-64, 64])),
    ("overlaps", shift("qkv", -64, -64)),
    ("leaves a hole", shift("golden.top_logits", 64, 64)),
    ("begins at", change_header(name_a_pad)),
    ("bytes of padding", one_pad_too_long),
    ("'head' is missing", change_header(lambda r: r.update(heap=r.pop("head")))),
    ("'norm' is U8", tensor_edit("norm", dtype="U8", shape=[256])),
    ("'norm' is F32", tensor_edit("norm", shape=[1, 64])),
    # metadata
    ("expected an object", change_header(lambda r: r.pop("__metadata__"))),
    ("expected a string", change_metadata(lambda m: m.update(x=1))),
    ("not an edge-llm program", drop_metadata("format")),
    ("lacks edge_llm.plan", drop_metadata("plan")),
    ("lacks edge_llm.digests", drop_metadata("digests")),
    ("lacks edge_llm.generation", drop_metadata("generation")),
    ("this edge-llm reads 2.x", set_metadata("format", "3.0")),
    ("this edge-llm reads 2.x", set_metadata("format", "1.2")),
    ("malformed", set_metadata("format", "1")),
    ("malformed", set_metadata("format", "1.x")),
    ("digests: missing", set_metadata("digests", "{}")),
    ("does not list exactly", set_metadata("digests", '{"documents":"","tensors":{}}')),
    ("plan: missing", set_metadata("plan", "{}")),
    ("plan: not valid JSON", set_metadata("plan", "")),
    ("recipe: expected an object", set_metadata("recipe", "[]")),
    ("metadata is damaged", change_metadata(lambda m: m.update(x=""), digest=False)),
    # small tensors
    ("'norm' is damaged", flip("norm")),
    ("'tokenizer.json' is damaged", flip("tokenizer.json")),
    ("'golden.next' is damaged", flip("golden.next")),
]


@pytest.mark.parametrize(("message", "damage"), HOSTILE)
def test_hostile_files_are_refused(
    program_path: Path, message: str, damage: Callable[[bytes], bytes]
) -> None:
    program_path.write_bytes(damage(program_path.read_bytes()))
    with pytest.raises(ProgramError, match=message) as info:
        Program.open(program_path)
    assert str(info.value).startswith(str(program_path))


def test_a_newer_major_version_says_what_to_do(program_path: Path) -> None:
    program_path.write_bytes(set_metadata("format", "3.0")(program_path.read_bytes()))
    with pytest.raises(ProgramError) as info:
        Program.open(program_path)
    assert info.value.hint is not None
    assert "upgrade" in info.value.hint


@pytest.mark.parametrize("version", ["2.0", "2.7"])
def test_other_minor_versions_are_read(program_path: Path, version: str) -> None:
    program_path.write_bytes(set_metadata("format", version)(program_path.read_bytes()))
    Program.open(program_path).close()


def test_weights_are_verified_on_demand(program_path: Path) -> None:
    program_path.write_bytes(flip("qkv")(program_path.read_bytes()))
    with Program.open(program_path) as program, pytest.raises(ProgramError, match="'qkv'"):
        program.verify_digests()


def test_no_such_tensor_and_no_such_file(program_path: Path, tmp_path: Path) -> None:
    with Program.open(program_path) as program, pytest.raises(ProgramError, match="no tensor 'x'"):
        program.tensor("x")
    with pytest.raises(ProgramError, match="No such file"):
        Program.open(tmp_path / "absent.edge")
    with pytest.raises(ProgramError, match="Is a directory"):
        Program.open(tmp_path)


@pytest.mark.parametrize(
    ("message", "name", "data"),
    [
        ("outside the vocabulary", "golden.next", np.full((2, 5), 96, np.int32)),
        ("outside the vocabulary", "golden.tokens", np.full((2, 5), -2, np.int32)),
        ("not finite", "golden.top_logits", np.full((2, 5), np.nan, np.float32)),
        ("two dimensions", "golden.next", np.zeros(5, np.int32)),
        ("number of prompts", "golden.next", np.zeros((3, 5), np.int32)),
        ("differ in shape", "golden.top_ids", np.zeros((2, 4), np.int32)),
        ("incomplete", "golden.next", None),
    ],
)
def test_golden_records_are_checked(
    parts: Any, tmp_path: Path, message: str, name: str, data: Any
) -> None:
    tensors = {s: d for s, d in parts.tensors.items() if s.name != name}
    if data is not None:
        dtype = "F32" if data.dtype == np.float32 else "I32"
        tensors[TensorSpec(name, dtype, data.shape)] = data
    with pytest.raises((ProgramError, ExportError), match=message):
        Program.open(replace(parts, tensors=tensors).write(tmp_path / "x.edge"))


# --- the writer ----------------------------------------------------------------------------------


def left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_tensors_come_in_any_order_as_arrays_or_bytes(parts: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.edge"
    with ProgramWriter(path, parts.plan, parts.documents, list(parts.tensors)) as writer:
        for spec, data in reversed(parts.tensors.items()):
            writer.write(spec.name, data.tobytes())
        writer.finish(parts.documents)
    assert path.read_bytes() == parts.write(tmp_path / "again.edge").read_bytes()


def test_a_sealed_file_runs_before_its_golden_record_exists(parts: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.edge"
    golden = {s: d for s, d in parts.tensors.items() if s.name.startswith("golden.")}
    grown = replace(parts.documents, report={"rows": ["x" * 100] * 500})
    with ProgramWriter(path, parts.plan, parts.documents, list(parts.tensors)) as writer:
        for spec, data in parts.tensors.items():
            if spec not in golden:
                writer.write(spec.name, data)
        writer.seal(grown)
        with Program.open(writer.temporary_path) as sealed:
            sealed.verify_digests()
        assert not path.exists()
        with pytest.raises(ExportError, match=r"golden\.next"):
            writer.finish(grown)
        for spec, data in golden.items():
            writer.write(spec.name, data)
        assert writer.finish(grown) == path
    with Program.open(path) as program:
        program.verify_digests()
        assert program.documents == grown
    assert left(tmp_path) == ["tiny.edge"]


def test_an_exception_leaves_no_file(parts: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.edge"
    path.write_bytes(b"the old file")

    def interrupted() -> None:
        specs = list(parts.tensors)
        with ProgramWriter(path, parts.plan, parts.documents, specs) as writer:
            assert writer.temporary_path.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert left(tmp_path) == ["tiny.edge"]
    assert path.read_bytes() == b"the old file"


def test_misuse_is_named(parts: Any, tmp_path: Path) -> None:
    specs = list(parts.tensors)
    with ProgramWriter(tmp_path / "x.edge", parts.plan, parts.documents, specs) as writer:
        with pytest.raises(ExportError, match="'y' is not awaited"):
            writer.write("y", b"")
        with pytest.raises(ExportError, match="3 bytes, expected 256"):
            writer.write("norm", b"abc")
        with pytest.raises(ExportError, match="were not written"):
            writer.seal(parts.documents)
        writer.write("norm", np.ones(64, np.float32))
        with pytest.raises(ExportError, match="'norm' is not awaited"):
            writer.write("norm", np.ones(64, np.float32))
        for spec, data in parts.tensors.items():
            if spec.name != "norm":
                writer.write(spec.name, data)
        with pytest.raises(ExportError, match="plain, finite JSON"):
            writer.seal(replace(parts.documents, report={"sqnr": float("inf")}))
        with pytest.raises(ExportError, match="not be a valid program: chat_template: 300000 char"):
            writer.seal(replace(parts.documents, chat_template="x" * 300_000))
        with pytest.raises(ExportError, match="beyond the space"):
            writer.seal(replace(parts.documents, report={"x": "x" * 500_000}))
    with pytest.raises(ExportError, match="would not be a valid program: tensor 'head'"):
        ProgramWriter(
            tmp_path / "x.edge", parts.plan, parts.documents, [s for s in specs if s.name != "head"]
        )
    with pytest.raises(ExportError, match="is taken"):
        ProgramWriter(tmp_path / "x.edge", parts.plan, parts.documents, [*specs, specs[0]])
    assert left(tmp_path) == []


def test_a_full_disk_is_said_before_the_work(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ExportError, match="No space left"):
        parts.write(tmp_path / "x.edge")
    assert left(tmp_path) == []
