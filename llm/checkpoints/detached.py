"""Bytes of a mapped file, copied so that a file cut short is an error.

To touch a mapping beyond the end of its file kills the process (SIGBUS), and a look at the file's
size beforehand does not help against a change right after it. The system's own copying reports the
same fault as an error: so what is used of a checkpoint is first sent through a pipe.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import Array, to_float32

_PIECE = 2**16  # bytes: what a pipe holds
_COMPARED = 2**22  # elements


def detached_bytes(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy of a contiguous [bytes] uint8 view of a mapping.

    Raises:
        CheckpointError: the file has been cut short since it was mapped.
    """
    if sys.platform == "win32":  # where a file that is mapped cannot be cut short
        return view.copy()
    copy = np.empty(view.size, np.uint8)
    source, target = view.data, copy.data
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)  # a piece larger than the pipe is sent in parts
        begin = 0
        while begin < len(source):
            end = begin + os.write(writing, source[begin : begin + _PIECE])
            while begin < end:
                begin += os.readv(reading, [target[begin:end]])
    except OSError as exc:
        if exc.errno != errno.EFAULT:
            raise
        raise CheckpointError("a file was cut short while it was read") from exc
    finally:
        os.close(reading)
        os.close(writing)
    return copy


def detached(array: Array) -> Array:
    """Return a copy of an array that may be a view of a mapping. For one that is not contiguous
    the last dimension at least must be.

    Raises:
        CheckpointError: the file has been cut short since it was mapped.
    """
    if array.size == 0:
        return array.copy()
    if not array.flags.c_contiguous and array.ndim > 1:
        return np.stack([detached(row) for row in array])
    raw = array.reshape(-1).view(np.uint8)
    return detached_bytes(raw).view(array.dtype).reshape(array.shape)


def detached_rows(matrix: Array, rows: slice | NDArray[np.int64]) -> Array:
    """Return a copy of ``matrix[rows]``, made as `detached` does; ``rows`` are consecutive or
    indices.

    Raises:
        CheckpointError: the file has been cut short since it was mapped.
    """
    if isinstance(rows, slice):
        return detached(matrix[rows])
    return np.stack([detached(matrix[row]) for row in rows.tolist()])


def same_values(one: Array, other: Array) -> bool:
    """Return whether two matrices that may be views of a mapping hold the same floats, which may
    be of different dtypes. They are read a few rows at a time.

    Raises:
        CheckpointError: a file has been cut short since it was mapped.
    """
    if one.shape != other.shape:
        return False
    return all(
        np.array_equal(to_float32(detached_rows(one, rows)), to_float32(detached_rows(other, rows)))
        for rows in _row_slices(one)
    )


def _row_slices(matrix: Array) -> Iterator[slice]:
    step = max(_COMPARED * len(matrix) // max(matrix.size, 1), 1)
    for begin in range(0, len(matrix), step):
        yield slice(begin, begin + step)
