"""The quantized matrices of a Hugging Face folder, by the method that its config names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.arrays import to_float32
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors
from edge_llm.llm.checkpoints.prequantized.compressed import read_compressed
from edge_llm.llm.checkpoints.prequantized.gptq import read_awq, read_gptq
from edge_llm.llm.checkpoints.prequantized.matrix import Reader, StoredMatrix
from edge_llm.llm.checkpoints.prequantized.torchao import read_torchao
from edge_llm.llm.config import shorten

READERS: Mapping[str, Reader] = {
    "awq": read_awq,
    "compressed-tensors": read_compressed,
    "gptq": read_gptq,
    "torchao": read_torchao,
}


@dataclass(frozen=True, slots=True)
class QuantizedMatrices:
    """Parameter name -> matrix; ``pieces`` are the tensors that they consume; ``notes`` say what
    was found."""

    matrices: Mapping[str, StoredMatrix]
    pieces: frozenset[str]
    notes: tuple[str, ...]


NONE = QuantizedMatrices({}, frozenset(), ())


def read_quantized(
    settings: object,
    tensors: Tensors,
    expected: Collection[str],
    problems: list[str],
    where: str,
) -> QuantizedMatrices:
    """The quantized matrices of a folder whose config has ``settings`` as quantization_config.
    Each layer is quantized or not by the tensors that are there. ``expected`` are the names of the
    model's parameters.

    Raises:
        ConfigError: a method or a variant that is not supported.
        CheckpointError: a tensor that cannot be read.
    """
    method = settings.get("quant_method") if isinstance(settings, Mapping) else settings
    reader = READERS.get(method) if isinstance(method, str) else None
    if reader is None or not isinstance(settings, Mapping):
        raise ConfigError(
            f"{where}: quantization_config: got a checkpoint quantized with {shorten(method)}, "
            f"expected {', '.join(READERS)} or plain weights",
            hint="use the original checkpoint: export quantizes it itself",
        )
    try:
        matrices = reader(settings, tensors, problems)
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc}", hint=exc.hint) from exc
    pieces = {piece for matrix in matrices.values() for piece in matrix.pieces}
    # Some writers give every quantized linear a bias, of zeros where the model has none.
    for name in matrices:
        bias = f"{name.removesuffix('.weight')}.bias"
        idle = bias in tensors.entries and bias not in expected
        if idle and not to_float32(tensors.read(bias)).any():
            pieces.add(bias)
    return QuantizedMatrices(matrices, frozenset(pieces), tuple(_notes(str(method), matrices)))


def _notes(method: str, matrices: Mapping[str, StoredMatrix]) -> list[str]:
    groups = Counter(matrix.group for matrix in matrices.values() if matrix.group is not None)
    reasons = Counter(matrix.reason for matrix in matrices.values() if matrix.group is None)
    lines = [
        f"checkpoint quantized with {method}: {count} matrices are int4 in groups of {group}"
        for group, count in groups.items()
    ]
    lines += [
        f"checkpoint quantized with {method}: {count} matrices are read as floats ({reason})"
        for reason, count in reasons.items()
    ]
    return lines
