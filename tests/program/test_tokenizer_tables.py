"""The tensors that a tokenizer loads fast from: whole or absent, of their dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_llm.errors import ExportError, ProgramError
from edge_llm.program.container import TensorSpec
from edge_llm.program.file import Program
from edge_llm.program.tensors import TOKENIZER, TOKENIZER_TABLES

Tables = dict[str, Any]


def make_tables() -> Tables:
    shapes = {"merges": (65, 4), "words": (70,), "skeleton": (3,)}
    return {
        name: np.full(
            shapes.get(name.partition(".")[2], (9,)),
            7,
            {"U8": np.uint8, "I32": np.int32}[dtype],
        )
        for name, (dtype, _) in TOKENIZER_TABLES.items()
    }


def write(parts: Any, tables: Tables, path: Path) -> Path:
    names = {np.uint8: "U8", np.int32: "I32", np.float32: "F32"}
    specs = {
        TensorSpec(name, names[table.dtype.type], table.shape): table
        for name, table in tables.items()
    }
    written: Path = replace(parts, tensors=parts.tensors | specs).write(path)
    return written


def test_round_trip(parts: Any, tmp_path: Path) -> None:
    tables = make_tables()
    with Program.open(write(parts, tables, tmp_path / "a.edge")) as program:
        assert program.tokenizer_tables.keys() == tables.keys()
        for name, view in program.tokenizer_tables.items():
            assert np.array_equal(view, tables[name])


def test_whole_words_are_optional(parts: Any, tmp_path: Path) -> None:
    tables = make_tables()
    del tables["tokenizer.words"]
    with Program.open(write(parts, tables, tmp_path / "a.edge")) as program:
        assert program.tokenizer_tables.keys() == tables.keys()


def test_older_files_have_none(program_path: Path) -> None:
    with Program.open(program_path) as program:
        assert not program.tokenizer_tables


def without(name: str) -> Callable[[Tables], None]:
    return lambda tables: tables.pop(f"tokenizer.{name}")


def other(name: str, shape: tuple[int, ...], dtype: Any = np.int32) -> Callable[[Tables], None]:
    return lambda tables: tables.update({f"tokenizer.{name}": np.zeros(shape, dtype)})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without("units"), r"'tokenizer\.units' is missing beside"),
        (without("skeleton"), r"'tokenizer\.skeleton' is missing beside"),
        (other("units", (9,), np.float32), r"is F32\[9\], expected I32, dimensions: 1"),
        (other("offsets", (3, 3)), r"is I32\[3, 3\], expected I32, dimensions: 1"),
        (other("merges", (64, 4)), "more than 64 rows of 4"),
        (other("merges", (65, 3)), "more than 64 rows of 4"),
        (other("words", (64,)), "more than 64 rows of 1"),
    ],
)
def test_others_are_refused(
    parts: Any, tmp_path: Path, change: Callable[[Tables], None], complaint: str
) -> None:
    tables = make_tables()
    change(tables)
    with pytest.raises(ExportError, match=complaint):  # what a reader would say
        write(parts, tables, tmp_path / "a.edge")


def damage(path: Path, name: str) -> None:
    with Program.open(path) as program:
        at = program._header.data_begin + program._header.entries[name].begin
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\x55")


def test_a_damaged_table_is_found_at_once(parts: Any, tmp_path: Path) -> None:
    path = write(parts, make_tables(), tmp_path / "a.edge")
    damage(path, "tokenizer.merges")
    with pytest.raises(ProgramError, match=r"'tokenizer\.merges' is damaged"):
        Program.open(path)


def test_a_damaged_document_is_found_when_it_is_read(parts: Any, tmp_path: Path) -> None:
    path = write(parts, make_tables(), tmp_path / "a.edge")
    damage(path, TOKENIZER)
    with Program.open(path) as program:
        with pytest.raises(ProgramError, match=r"'tokenizer\.json' is damaged"):
            program.verify_digests()
        with pytest.raises(ProgramError, match=r"'tokenizer\.json' is damaged"):
            _ = program.tokenizer_json
