"""Bytes copied out of mapped files, and what happens when such a file is cut short."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.detached import (
    detached,
    detached_bytes,
    detached_rows,
    same_values,
)


def test_copies_are_equal_and_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 65535, 65536, 65537, 300_001):
        data = rng.integers(0, 256, size, np.uint8)
        copy = detached_bytes(data)
        assert np.array_equal(copy, data)
        data += 1
        assert size == 0 or not np.array_equal(copy, data)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int8, np.int64])
def test_arrays_of_any_dtype_and_layout(dtype: type) -> None:
    matrix = (np.arange(300 * 70).reshape(300, 70) % 100).astype(dtype)
    assert np.array_equal(detached(matrix), matrix)
    assert np.array_equal(detached(matrix[7]), matrix[7])
    assert np.array_equal(detached(matrix[:, 3:20]), matrix[:, 3:20])
    assert np.array_equal(detached(np.array(5, dtype)), np.array(5, dtype))
    assert detached(matrix[:0]).shape == (0, 70)
    assert np.array_equal(detached_rows(matrix, slice(5, 9)), matrix[5:9])
    some = np.array([3, 299, 3])
    assert np.array_equal(detached_rows(matrix, some), matrix[some])


def test_same_values() -> None:
    one = np.zeros((3000, 3000), np.float32)
    other = one.copy()
    assert same_values(one, other)
    assert same_values(one, one.astype(np.float16))
    other[-1, -1] = 1.0
    assert not same_values(one, other)
    assert not same_values(one, one[:-1])


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a mapped file cannot be cut short")
def test_a_file_that_is_cut_short_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(1 << 20))
    mapped = np.memmap(path, np.uint8, "r")
    matrix = np.memmap(path, np.float32, "r").reshape(256, -1)
    os.truncate(path, 1 << 19)
    assert detached_bytes(mapped[: 1 << 19]).size == 1 << 19
    with pytest.raises(CheckpointError, match="cut short"):
        detached_bytes(mapped[(1 << 19) - 100 :])
    with pytest.raises(CheckpointError, match="cut short"):
        detached_rows(matrix, np.array([0, 255]))
