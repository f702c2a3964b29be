"""The contents of a checkpoint, as PyTorch's tensors."""

from __future__ import annotations

import torch

from edge_llm.llm.checkpoints.detached import detached
from edge_llm.llm.checkpoints.source import Checkpoint
from edge_llm.llm.models.tensors import as_tensor


def tensor_of(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """Return a copy of one parameter."""
    return as_tensor(detached(checkpoint.tensor(name)))
