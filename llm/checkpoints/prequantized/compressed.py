"""Checkpoints of compressed-tensors in the format "pack-quantized".

``weight_packed`` [N, K * bits / 32] int32 holds consecutive k of one output in a word, each plus
half the range; ``weight_scale`` [N, G]; ``weight_shape`` the two numbers N and K. Asymmetric ones
have ``weight_zero_point`` [N * bits / 32, G], packed along N; those in order of their
activations, which are refused, ``weight_g_idx`` [K].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.arrays import to_float32
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors
from edge_llm.llm.checkpoints.prequantized.matrix import (
    FLOATS,
    Grid,
    Pieces,
    StoredMatrix,
    check_settings,
    fitting_pieces,
    integer_format,
    matrix_shape,
    modules_with,
    unpack_words,
)
from edge_llm.llm.config import shorten

FORMAT = "pack-quantized"
PACKED = ".weight_packed"
BITS = (4, 8)
UNMOVED = (None, "weight", "static")  # orders of quantization that leave the columns in place


def read_compressed(
    settings: Mapping[str, object], tensors: Tensors, problems: list[str]
) -> dict[str, StoredMatrix]:
    """The matrices by parameter name; lines for what does not fit go to ``problems``.

    Raises:
        ConfigError: another format, or groups of layers that are quantized in different ways.
        CheckpointError: a tensor that cannot be read.
    """
    scheme = _scheme(settings)
    bits, symmetric = scheme.get("num_bits"), scheme.get("symmetric", True)
    unset = {key: settings.get(key) or None for key in ("kv_cache_scheme", "transform_config")}
    check_settings(
        (
            ("format", settings.get("format"), settings.get("format") == FORMAT, repr(FORMAT)),
            ("num_bits", bits, type(bits) is int and bits in BITS, f"one of {BITS}"),
            ("type", scheme.get("type"), scheme.get("type", "int") == "int", "'int'"),
            ("symmetric", symmetric, type(symmetric) is bool, "true or false"),
            ("actorder", scheme.get("actorder"), scheme.get("actorder") in UNMOVED, "none"),
            *((key, value, value is None, "none") for key, value in unset.items()),
        ),
        hint="use the original checkpoint: export quantizes it itself",
    )
    assert isinstance(bits, int)
    matrices: dict[str, StoredMatrix] = {}
    for module in modules_with(tensors, PACKED):
        n, words = matrix_shape(tensors, f"{module}{PACKED}")
        k = words * 32 // bits
        scale = tensors.entries.get(f"{module}.weight_scale")
        count = scale.shape[-1] if scale is not None and scale.shape else 1
        if count < 1 or k % count:
            problems.append(f"{module}: got {count} scales for {k} columns, expected a divisor")
            continue
        pieces: Pieces = {
            "weight_packed": (("I32",), (n, words)),
            "weight_scale": (FLOATS, (n, count)),
            "weight_shape": (("I64", "I32"), (2,)),
        }
        if not symmetric:
            pieces["weight_zero_point"] = (("I32",), (-(-n * bits // 32), count))
        if not fitting_pieces(tensors, module, pieces, problems):
            continue
        stated = tensors.read(f"{module}.weight_shape").tolist()
        if stated != [n, k]:
            problems.append(f"{module}.weight_shape: got {stated}, expected {[n, k]}")
            continue
        names = tuple(f"{module}.{piece}" for piece in pieces)
        matrices[f"{module}.weight"] = _matrix(tensors, names, (n, k), k // count, bits)
    return matrices


def _scheme(settings: Mapping[str, object]) -> Mapping[str, object]:
    """Return how weights are quantized, which must be the same for every group of layers."""
    groups = settings.get("config_groups")
    schemes = [
        group.get("weights")
        for group in (groups.values() if isinstance(groups, Mapping) else ())
        if isinstance(group, Mapping)
    ]
    if not schemes or any(scheme != schemes[0] for scheme in schemes):
        raise ConfigError(
            f"quantization_config: config_groups: got {shorten(groups)}, "
            "expected groups with the same weights"
        )
    return schemes[0] if isinstance(schemes[0], Mapping) else {}


def _matrix(
    tensors: Tensors, names: tuple[str, ...], shape: tuple[int, int], columns: int, bits: int
) -> StoredMatrix:
    zeros: NDArray[np.int16] | None = None
    if len(names) > 3:
        zeros = unpack_words(tensors.read(names[3]), bits, 0)[: shape[0]].astype(np.int16)

    def read() -> Grid:
        q = unpack_words(tensors.read(names[0]), bits, 1)
        return Grid(q, to_float32(tensors.read(names[1])), zeros)

    held = integer_format(bits, shape[1], columns, zeros, tensors.read(names[1]))
    return StoredMatrix(shape, names, read, *held)
