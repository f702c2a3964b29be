"""Checkpoints of GPTQ and AWQ: int32 words of 4-bit fields, scales and zero points per group.

GPTQ: ``qweight`` [K * bits / 32, N] holds consecutive k of one output in a word; ``qzeros``
[G, N * bits / 32] consecutive outputs; ``scales`` [G, N]; ``g_idx`` [K] the group of each k, which
is not k // group_size where columns were quantized in order of their activations ("desc_act").
Version 1 of the format stores each zero point less one.

AWQ ("gemm"): ``qweight`` [K, N / 8] and ``qzeros`` [G, N / 8] hold eight outputs in a word, in the
order 0, 2, 4, 6, 1, 3, 5, 7.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError
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
    integer_setting,
    matrix_shape,
    modules_with,
    unpack_words,
)

GPTQ_FORMATS = ("gptq", "gptq_v2")
GPTQ_BITS = (2, 4, 8)
AWQ_FIELDS = (0, 2, 4, 6, 1, 3, 5, 7)  # field of a word -> output


def read_gptq(
    settings: Mapping[str, object], tensors: Tensors, problems: list[str]
) -> dict[str, StoredMatrix]:
    """The matrices by parameter name; lines for what does not fit go to ``problems``.

    Raises:
        ConfigError: a variant that is not supported.
        CheckpointError: a tensor that cannot be read.
    """
    bits = integer_setting(settings, "bits")
    size = integer_setting(settings, "group_size")
    variant = settings.get("checkpoint_format") or "gptq"
    dynamic = settings.get("dynamic") or {}
    excluded_only = isinstance(dynamic, Mapping) and all(
        str(pattern).startswith("-:") for pattern in dynamic
    )
    check_settings(
        (
            ("bits", bits, bits in GPTQ_BITS, f"one of {GPTQ_BITS}"),
            ("group_size", size, size == -1 or size > 0, "-1 or a number above 0"),
            ("checkpoint_format", variant, variant in GPTQ_FORMATS, f"one of {GPTQ_FORMATS}"),
            ("pack_dtype", settings.get("pack_dtype"), _is_int32(settings), "int32"),
            ("dynamic", dynamic, excluded_only, "exclusions (-:PATTERN) alone"),
        )
    )

    matrices: dict[str, StoredMatrix] = {}
    for module in modules_with(tensors, ".qweight"):
        rows, n = matrix_shape(tensors, f"{module}.qweight")
        k = rows * 32 // bits
        if n * bits % 32:
            problems.append(f"{module}: got {n} outputs, expected a multiple of {32 // bits}")
            continue
        count = 1 if size == -1 else -(-k // size)
        pieces: Pieces = {
            "qweight": (("I32",), (rows, n)),
            "qzeros": (("I32",), (count, n * bits // 32)),
            "scales": (FLOATS, (count, n)),
        }
        if f"{module}.g_idx" in tensors.entries:
            pieces["g_idx"] = (("I32",), (k,))
        if not fitting_pieces(tensors, module, pieces, problems):
            continue
        names = tuple(f"{module}.{piece}" for piece in pieces)
        matrices[f"{module}.weight"] = _gptq_matrix(
            tensors, names, (n, k), bits, k if size == -1 else size, one_less=variant == "gptq"
        )
    return matrices


def _is_int32(settings: Mapping[str, object]) -> bool:
    return settings.get("pack_dtype", "int32") in ("int32", "torch.int32", None)


def _gptq_matrix(
    tensors: Tensors,
    names: tuple[str, ...],
    shape: tuple[int, int],
    bits: int,
    size: int,
    *,
    one_less: bool,
) -> StoredMatrix:
    qweight, qzeros, scales = names[:3]
    zeros = _gptq_zeros(tensors.read(qzeros), bits, one_less=one_less)  # (N, G)
    k = shape[1]
    groups: NDArray[np.int64] | None = None
    if len(names) > 3:
        order = tensors.read(names[3]).astype(np.int64)
        if ((order < 0) | (order >= zeros.shape[1])).any():
            raise CheckpointError(
                f"{names[3]}: got groups {int(order.min())} to {int(order.max())}, "
                f"expected 0 to {zeros.shape[1] - 1}"
            )
        if not np.array_equal(order, np.arange(k) // size):
            groups = order
    if k % size and groups is None:  # the last group is short
        groups = np.arange(k) // size

    def read() -> Grid:
        q = np.ascontiguousarray(unpack_words(tensors.read(qweight), bits, 0).T)
        return Grid(q, np.ascontiguousarray(to_float32(tensors.read(scales)).T), zeros, groups)

    if groups is not None:
        return StoredMatrix(shape, names, read, None, "columns in another order")
    stored = None if tensors.entries[scales].dtype == "F16" else tensors.read(scales)
    return StoredMatrix(shape, names, read, *integer_format(bits, k, size, zeros, stored))


def _gptq_zeros(words: NDArray[np.int32], bits: int, *, one_less: bool) -> NDArray[np.int16]:
    """Return zero points relative to the middle of the range, [N, G]."""
    middle, mask = 1 << (bits - 1), (1 << bits) - 1
    stored = unpack_words(words, bits, 1).astype(np.int16) + np.int16(middle)
    zeros = (stored + 1) & mask if one_less else stored
    return np.ascontiguousarray((zeros - middle).T)


def read_awq(
    settings: Mapping[str, object], tensors: Tensors, problems: list[str]
) -> dict[str, StoredMatrix]:
    """The matrices by parameter name; lines for what does not fit go to ``problems``.

    Raises:
        ConfigError: a variant that is not supported.
        CheckpointError: a tensor that cannot be read.
    """
    bits = integer_setting(settings, "bits")
    size = integer_setting(settings, "group_size")
    version = settings.get("version", "gemm")
    check_settings(
        (
            ("bits", bits, bits == 4, "4"),
            ("group_size", size, size == -1 or size > 0, "-1 or a number above 0"),
            ("version", version, str(version).lower() == "gemm", "'gemm'"),
        )
    )
    matrices: dict[str, StoredMatrix] = {}
    for module in modules_with(tensors, ".qweight"):
        k, words = matrix_shape(tensors, f"{module}.qweight")
        n, columns = words * 8, k if size == -1 else size
        if k % columns:
            problems.append(f"{module}: got {k} columns, expected a multiple of {columns}")
            continue
        pieces: Pieces = {
            "qweight": (("I32",), (k, words)),
            "qzeros": (("I32",), (k // columns, words)),
            "scales": (FLOATS, (k // columns, n)),
        }
        if not fitting_pieces(tensors, module, pieces, problems):
            continue
        names = tuple(f"{module}.{piece}" for piece in pieces)
        matrices[f"{module}.weight"] = _awq_matrix(tensors, names, (n, k), columns)
    return matrices


def _awq_matrix(
    tensors: Tensors, names: tuple[str, ...], shape: tuple[int, int], columns: int
) -> StoredMatrix:
    qweight, qzeros, scales = names
    zeros = _awq_unpack(tensors.read(qzeros)).astype(np.int16)

    def read() -> Grid:
        q = _awq_unpack(tensors.read(qweight))
        return Grid(q, np.ascontiguousarray(to_float32(tensors.read(scales)).T), zeros)

    stored = None if tensors.entries[scales].dtype == "F16" else tensors.read(scales)
    return StoredMatrix(shape, names, read, *integer_format(4, shape[1], columns, zeros, stored))


def _awq_unpack(words: NDArray[np.int32]) -> NDArray[np.int8]:
    """Return int8 [N, rows] in [-8, 7] from ``words`` [rows, N / 8]."""
    rows, count = words.shape
    fields = unpack_words(words, 4, 1).reshape(rows, count, 8)
    outputs = np.empty_like(fields)
    outputs[:, :, list(AWQ_FIELDS)] = fields
    return np.ascontiguousarray(outputs.reshape(rows, count * 8).T)
