"""Checkpoints of 8-bit floats, as DeepSeek, Qwen and Mistral publish them ("fp8").

``weight`` [N, K] holds E4M3 codes, ``weight_scale_inv`` what they are multiplied by: one number, or
one of each block of ``weight_block_size``, [N / rows, K / columns] rounded up. ``activation_scale``
is for kernels that round activations to such floats too, which are not ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_llm.llm.checkpoints.arrays import to_float32
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors
from edge_llm.llm.checkpoints.prequantized.matrix import (
    FLOATS,
    Grid,
    Pieces,
    StoredMatrix,
    check_settings,
    fitting_pieces,
    matrix_shape,
    modules_with,
)
from edge_llm.llm.config import is_integer

SCALE = ".weight_scale_inv"


def read_fp8(
    settings: Mapping[str, object], tensors: Tensors, problems: list[str]
) -> dict[str, StoredMatrix]:
    """The matrices by parameter name; lines for what does not fit go to ``problems``.

    Raises:
        ConfigError: another format.
        CheckpointError: a tensor that cannot be read.
    """
    block, form = settings.get("weight_block_size"), settings.get("fmt", "e4m3")
    sizes = block if isinstance(block, list) else []
    fits = block is None or (len(sizes) == 2 and all(is_integer(n) and n > 0 for n in sizes))
    check_settings(
        (
            ("fmt", form, form == "e4m3", "'e4m3'"),
            ("weight_block_size", block, fits, "null or two numbers above 0"),
        ),
        hint="use the original checkpoint: export quantizes it itself",
    )
    matrices: dict[str, StoredMatrix] = {}
    for module in modules_with(tensors, SCALE):
        if f"{module}.weight" not in tensors.entries:
            problems.append(f"missing: {module}.weight, of which there is {module}{SCALE}")
            continue
        n, k = matrix_shape(tensors, f"{module}.weight")
        rows, columns = sizes or (n, k)
        scale = tensors.entries[f"{module}{SCALE}"].shape
        expected = scale if not sizes and scale in ((), (1,)) else (-(-n // rows), -(-k // columns))
        pieces: Pieces = {
            "weight": (("F8_E4M3",), (n, k)),
            "weight_scale_inv": (FLOATS, expected),
        }
        if not fitting_pieces(tensors, module, pieces, problems):
            continue
        names = tuple(
            f"{module}.{piece}"
            for piece in ("weight", "weight_scale_inv", "activation_scale")
            if f"{module}.{piece}" in tensors.entries
        )
        matrices[f"{module}.weight"] = _matrix(tensors, names, (n, k), rows, columns)
    return matrices


def _matrix(
    tensors: Tensors, names: tuple[str, ...], shape: tuple[int, int], rows: int, columns: int
) -> StoredMatrix:
    n, k = shape

    def read() -> Grid:
        values = _E4M3[tensors.read(names[0])]
        scales = to_float32(tensors.read(names[1])).reshape(-(-n // rows), -(-k // columns))
        return Grid(values, scales.repeat(rows, axis=0)[:n], groups=np.arange(k) // columns)

    return StoredMatrix(shape, names, read, None, "8-bit floats")


def _e4m3() -> NDArray[np.float32]:
    """Return the numbers of all codes: a sign, 4 bits of exponent, 3 of mantissa; without
    infinities, and with one NaN of each sign."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    normal = np.ldexp(1.0 + mantissa / 8, exponent - 7)
    values = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), normal)
    values[(codes & 127) == 127] = np.nan
    return np.where(codes >= 128, -values, values).astype(np.float32)


_E4M3 = _e4m3()
