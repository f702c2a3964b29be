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
import torch
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError

_PIECE = 2**16  # bytes: what a pipe holds
_COMPARED = 2**22  # elements


def detached_bytes(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of a contiguous [bytes] uint8 view of a mapping.

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


def detached(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor that may be a view of a mapping. For one that is not contiguous the
    last dimension at least must be.

    Raises:
        CheckpointError: the file has been cut short since it was mapped.
    """
    if tensor.numel() == 0:
        return tensor.clone()
    if not tensor.is_contiguous() and tensor.dim() > 1:
        return torch.stack([detached(row) for row in tensor])
    raw = tensor.reshape(-1).view(torch.uint8).numpy()
    return torch.from_numpy(detached_bytes(raw)).view(tensor.dtype).reshape(tensor.shape)


def detached_rows(matrix: torch.Tensor, rows: slice | torch.Tensor) -> torch.Tensor:
    """``matrix[rows]``, copied as `detached` does; ``rows`` are consecutive or int64 indices.

    Raises:
        CheckpointError: the file has been cut short since it was mapped.
    """
    if isinstance(rows, slice):
        return detached(matrix[rows])
    return torch.stack([detached(matrix[row]) for row in rows.tolist()])


def same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    """`torch.equal` of two matrices that may be views of a mapping, a few rows at a time.

    Raises:
        CheckpointError: a file has been cut short since it was mapped.
    """
    if one.shape != other.shape:
        return False
    return all(
        torch.equal(detached_rows(one, rows), detached_rows(other, rows))
        for rows in _row_slices(one)
    )


def _row_slices(matrix: torch.Tensor) -> Iterator[slice]:
    step = max(_COMPARED * len(matrix) // max(matrix.numel(), 1), 1)
    for begin in range(0, len(matrix), step):
        yield slice(begin, begin + step)
