"""MXFP4 as gpt-oss checkpoints lay it out (``quant_method`` "mxfp4").

A parameter NAME with rows of K weights is two uint8 tensors: ``NAME_blocks`` [.., K / 32, 16],
whose bytes hold two neighbouring weights, the first in the low nibble, and ``NAME_scales``
[.., K / 32], the exponent of each 32 weights plus 127. Leading dimensions are rows: of experts
[E, N], unlike the floats of such a checkpoint, which are [E, K, N]. Rows of gates and of what they
let through take turns. (GGUF files put the weights of a byte 16 apart; `gguf.integers` reads
those.)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ExportError
from edge_llm.llm.checkpoints.detached import detached
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors
from edge_llm.llm.checkpoints.prequantized.matrix import (
    Pieces,
    StoredMatrix,
    fitting_pieces,
    modules_with,
)
from edge_llm.llm.config import shorten
from edge_llm.llm.stacks import member
from edge_llm.program.formats import LEVELS, WEIGHT_FORMATS
from edge_llm.program.integers import Integers
from edge_llm.program.ops import MAX_EXPERTS

BLOCKS, SCALES = "_blocks", "_scales"
# Last names of parameters -> those of the stacks whose rows take turns in them.
PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
GROUP = 32  # weights that share a scale
_LEVELS = np.array(LEVELS["e2m1"], np.int8)


def mxfp4_integers(name: str, blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> Integers:
    """Return the rows of a parameter, [rows, K], of experts one after the other.

    Raises:
        CheckpointError: shapes or types that do not belong together, or scales beyond what
            weights in float32 can have.
    """
    got = f"{blocks.dtype} {list(blocks.shape)} with scales {scales.dtype} {list(scales.shape)}"
    if (
        blocks.dtype != np.uint8
        or scales.dtype != np.uint8
        or blocks.ndim < 3
        or blocks.shape != (*scales.shape, GROUP // 2)
        or blocks.size == 0
    ):
        raise CheckpointError(
            f"{name}: got blocks {got}, expected uint8 [.., K / {GROUP}, {GROUP // 2}] with "
            "as many scales as blocks"
        )
    fields = np.stack((blocks & np.uint8(15), blocks >> np.uint8(4)), axis=-1)
    groups = scales.shape[-1]
    codes = _LEVELS[fields.reshape(-1, groups * GROUP)]
    try:
        return Integers(WEIGHT_FORMATS["e2m1g32"], codes, scales.reshape(-1, groups))
    except ExportError as exc:
        raise CheckpointError(f"{name}: {exc}") from exc


def read_mxfp4(
    settings: Mapping[str, object], tensors: Tensors, problems: list[str]
) -> dict[str, StoredMatrix]:
    """The matrices by parameter name, one for each expert; lines for what does not fit go to
    ``problems``. No setting matters beside the tensors that are there."""
    matrices: dict[str, StoredMatrix] = {}
    for stored in modules_with(tensors, BLOCKS):
        owner, _, last = stored.rpartition(".")
        shape = tensors.entries[f"{stored}{BLOCKS}"].shape
        parts = PARTS.get(last, ())
        if len(shape) != 4 or 0 in shape or not parts or shape[1] % len(parts):
            problems.append(
                f"shape: {shorten(f'{stored}{BLOCKS}')}: got {list(shape)}, expected "
                f"[experts, rows, groups, {GROUP // 2}] of {' or '.join(PARTS)}"
            )
            continue
        experts, rows, groups, _ = shape
        pieces: Pieces = {
            f"{last}{BLOCKS}": (("U8",), (experts, rows, groups, GROUP // 2)),
            f"{last}{SCALES}": (("U8",), (experts, rows, groups)),
        }
        if experts > MAX_EXPERTS:
            problems.append(f"{shorten(stored)}: got {experts} experts, expected {MAX_EXPERTS}")
            continue
        if not fitting_pieces(tensors, owner, pieces, problems):
            continue
        size = rows // len(parts), groups * GROUP
        names = f"{stored}{BLOCKS}", f"{stored}{SCALES}"
        for expert in range(experts):
            for part, name in enumerate(parts):
                read = partial(_expert, tensors, names, expert, slice(part, None, len(parts)))
                matrices[member(f"{owner}.{name}", expert)] = StoredMatrix(
                    size, names, read, WEIGHT_FORMATS["e2m1g32"]
                )
    return matrices


def _expert(tensors: Tensors, names: tuple[str, str], expert: int, rows: slice) -> Integers:
    blocks, scales = (detached(tensors.view(name)[expert])[rows] for name in names)
    return mxfp4_integers(names[0], blocks, scales)
