"""A file of records from which an evaluation goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_llm.errors import RequestError
from edge_llm.runner.evaluation.journal import Journal

HEADER = {"task": "mmlu", "limit": None}


def test_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with Journal(path, HEADER) as journal:
        journal.add({"id": "a", "value": 0.1})
    with Journal(path, HEADER) as journal:
        assert journal.records == {"a": {"id": "a", "value": 0.1}}
        journal.add({"id": "b", "value": 2})
    with Journal(path, HEADER) as journal:
        assert list(journal.records) == ["a", "b"]


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_what_was_cut_is_written_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "records.jsonl"
    with Journal(path, HEADER) as journal:
        journal.add({"id": "a"})
        journal.add({"id": "b"})
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, HEADER) as journal:
        assert "b" not in journal.records
        for name in {"a", "b"} - journal.records.keys():
            journal.add({"id": name})
    with Journal(path, HEADER) as journal:
        assert journal.records.keys() == {"a", "b"}


def test_another_evaluation_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with Journal(path, HEADER) as journal:
        journal.add({"id": "a"})
    before = path.read_bytes()
    with pytest.raises(RequestError, match="its limit is None, expected 3"):
        Journal(path, {**HEADER, "limit": 3})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b"[1]\n", b'{"id": 1}\n'])
def test_no_other_file_is_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(RequestError):
        Journal(path, HEADER)
    assert path.read_bytes() == content


def test_records_without_ids(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    Journal(path, HEADER).close()
    path.write_bytes(path.read_bytes() + b'{"value": 1}\n')
    with pytest.raises(RequestError, match="has no id"):
        Journal(path, HEADER)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot write"):
        Journal(tmp_path / "no" / "folder", HEADER)
    with pytest.raises(RequestError, match="cannot write"):
        Journal(tmp_path, HEADER)
    with Journal(None, HEADER) as journal:
        journal.add({"id": "a"})
        assert list(journal.records) == ["a"]
