"""The contents of a checkpoint, as PyTorch's tensors."""

from __future__ import annotations

import torch

from edge_llm.llm.checkpoints.detached import detached
from edge_llm.llm.checkpoints.source import Checkpoint
from edge_llm.llm.models.tensors import as_tensor


def tensor_of(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """Return a copy of one parameter."""
    return as_tensor(detached(checkpoint.tensor(name)))


def assert_same_model(made: Checkpoint, source: Checkpoint) -> None:
    """Both have the same config and the same parameters."""
    assert made.config == source.config
    assert_same_parameters(made, source)


def assert_same_parameters(made: Checkpoint, source: Checkpoint) -> None:
    """Both have parameters of the same names, shapes and values; but ``A_log``, which GGUF files
    store as -e^A_log, may be rounded."""
    assert made.shapes == source.shapes
    for name in source.shapes:
        got, expected = tensor_of(made, name), tensor_of(source, name)
        if name.endswith("A_log"):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
        else:
            assert torch.equal(got, expected), name
