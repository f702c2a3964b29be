"""The one place where the arrays of checkpoints become PyTorch's tensors."""

from __future__ import annotations

import torch

from edge_llm.llm.checkpoints.arrays import BFLOAT16, Array


def as_tensor(array: Array) -> torch.Tensor:
    """Return a tensor that shares the memory of ``array``, which must be writable: what may be a
    view of a file is copied by `detached` first. Unsigned 16-bit integers become bfloat16, which
    they stand for."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == BFLOAT16 else tensor
