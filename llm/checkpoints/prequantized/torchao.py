"""Checkpoints of torchao's tensor classes, as transformers writes them in safetensors.

A weight ``M.weight`` is flattened to tensors ``M._weight_qdata``, ``M._weight_scale`` and
``M._weight_zero_point``; the header's metadata has a JSON object for it: the class, its attributes
(``block_size``, ``target_dtype``) and which tensors it consists of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.arrays import to_float32
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors
from edge_llm.llm.checkpoints.prequantized.matrix import (
    FLOATS,
    Grid,
    Pieces,
    StoredMatrix,
    fitting_pieces,
    integer_format,
    matrix_shape,
    modules_with,
)
from edge_llm.llm.config import is_integer, shorten

CLASSES = ("IntxUnpackedToInt8Tensor", "Int8Tensor")
QDATA = "._weight_qdata"


def read_torchao(
    settings: Mapping[str, object], tensors: Tensors, problems: list[str]
) -> dict[str, StoredMatrix]:
    """The matrices by parameter name; lines for what does not fit go to ``problems``. What the
    header's metadata says of each tensor counts, not the config's summary of it.

    Raises:
        ConfigError: a tensor class that is not supported.
        CheckpointError: a tensor or its description that cannot be read.
    """
    metadata = tensors.metadata()
    matrices: dict[str, StoredMatrix] = {}
    for name in metadata:
        if name.endswith(".weight"):
            kind = _description(metadata, name).get("_type")
            if kind not in (*CLASSES, "Tensor"):
                raise ConfigError(
                    f"{name}: got a torchao {shorten(kind)}, expected {' or '.join(CLASSES)}",
                    hint="use the original checkpoint: export quantizes it itself",
                )
    for module in modules_with(tensors, QDATA):
        name = f"{module}.weight"
        if name not in metadata:
            raise CheckpointError(f"{name}: the header's metadata does not describe it")
        attributes = _description(metadata, name).get("_data")
        n, k = matrix_shape(tensors, f"{module}{QDATA}")
        columns = _block_columns(attributes, name, k)
        pieces: Pieces = {
            "_weight_qdata": (("I8",), (n, k)),
            "_weight_scale": (FLOATS, (n, k // columns)),
        }
        zeros = f"{module}._weight_zero_point"
        if zeros in tensors.entries:
            pieces["_weight_zero_point"] = (("I8",), (n, k // columns))
        if fitting_pieces(tensors, module, pieces, problems):
            names = tuple(f"{module}.{piece}" for piece in pieces)
            matrices[name] = _matrix(tensors, names, (n, k), columns, _bits(attributes))
    return matrices


def _description(metadata: Mapping[str, str], name: str) -> Mapping[str, object]:
    try:
        value = json.loads(metadata[name])
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{name}: its metadata is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{name}: its metadata is a {type(value).__name__}, not an object")
    return value


def _block_columns(attributes: object, name: str, k: int) -> int:
    block = attributes.get("block_size") if isinstance(attributes, Mapping) else None
    if (
        not isinstance(block, list)
        or len(block) != 2
        or block[0] != 1
        or not is_integer(block[1])
        or block[1] < 1
        or k % block[1]
    ):
        raise CheckpointError(
            f"{name}: got block_size {shorten(block)}, expected [1, a divisor of {k}]"
        )
    return block[1]


def _bits(attributes: object) -> int:
    """Bits of the integers; 8 for classes that do not say."""
    dtype = attributes.get("target_dtype") if isinstance(attributes, Mapping) else None
    text = dtype.get("_data") if isinstance(dtype, Mapping) else None
    return 4 if text == "int4" else 8


def _matrix(
    tensors: Tensors, names: tuple[str, ...], shape: tuple[int, int], columns: int, bits: int
) -> StoredMatrix:
    qdata, scale = names[:2]
    zeros: NDArray[np.int16] | None = None
    if len(names) > 2:
        stored = tensors.read(names[2]).astype(np.int16)
        zeros = stored if stored.any() else None

    def read() -> Grid:
        q = tensors.read(qdata)
        if bits == 4 and ((q < -8) | (q > 7)).any():
            raise CheckpointError(f"{qdata}: got integers beyond [-8, 7], expected int4")
        return Grid(q, to_float32(tensors.read(scale)), zeros)

    held = integer_format(bits, shape[1], columns, zeros, tensors.read(scale))
    return StoredMatrix(shape, names, read, *held)
