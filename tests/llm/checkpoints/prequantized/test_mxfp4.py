"""MXFP4 in the layout of gpt-oss checkpoints, against what transformers makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.prequantized.mxfp4 import mxfp4_integers
from edge_llm.program import pack


def random_tensors(*rows: int, groups: int) -> tuple[Any, Any]:
    """Blocks of any bytes, and scales around 1."""
    rng = np.random.default_rng(len(rows))
    blocks = rng.integers(0, 256, (*rows, groups, 16), np.uint8)
    return blocks, rng.integers(110, 140, (*rows, groups), np.uint8)


def test_the_weights_are_those_of_transformers() -> None:
    blocks, scales = random_tensors(3, 40, groups=6)
    made = mxfp4_integers("down_proj", blocks, scales)
    expected = convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32
    )
    # transformers turns each expert around, for x @ weight.
    rows = expected.transpose(1, 2).reshape(3 * 40, 192).numpy()
    assert made.format.name == "e2m1g32"
    assert np.array_equal(made.dequantize(), rows)
    packed = pack.pack_integers(made)
    assert np.array_equal(pack.dequantize(packed, made.format, 3 * 40, 192), rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda blocks, scales: (blocks, scales[:, :5]), "as many scales as blocks"),
        (lambda blocks, scales: (blocks[..., :8], scales), "as many scales as blocks"),
        (lambda blocks, scales: (blocks.view(np.int8), scales), "got blocks int8"),
        (lambda blocks, scales: (blocks, scales * 0 + np.uint8(255)), "exponents up to 255"),
    ],
)
def test_tensors_that_do_not_fit(change: Any, said: str) -> None:
    blocks, scales = change(*random_tensors(40, groups=6))
    with pytest.raises(CheckpointError, match=f"down_proj: .*{said}"):
        mxfp4_integers("down_proj", blocks, scales)
