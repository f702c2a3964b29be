"""The quantized matrices of a Hugging Face folder, by the method that its config names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.arrays import to_float32
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors
from edge_llm.llm.checkpoints.prequantized.compressed import read_compressed
from edge_llm.llm.checkpoints.prequantized.fp8 import read_fp8
from edge_llm.llm.checkpoints.prequantized.gptq import read_awq, read_gptq
from edge_llm.llm.checkpoints.prequantized.matrix import Reader, StoredMatrices
from edge_llm.llm.checkpoints.prequantized.mxfp4 import read_mxfp4
from edge_llm.llm.checkpoints.prequantized.torchao import read_torchao
from edge_llm.llm.config import shorten

READERS: Mapping[str, Reader] = {
    "awq": read_awq,
    "compressed-tensors": read_compressed,
    "fp8": read_fp8,
    "gptq": read_gptq,
    "mxfp4": read_mxfp4,
    "torchao": read_torchao,
}


@dataclass(frozen=True, slots=True)
class QuantizedMatrices(StoredMatrices):
    """Those of a folder; ``method`` is the config's name of the method, None where it names
    none."""

    method: str | None

    def stored_as(self) -> dict[str, str]:
        """Return how each matrix is stored, for people."""
        return {
            name: f"{self.method}, {matrix.format.name if matrix.format else matrix.reason}"
            for name, matrix in self.matrices.items()
        }

    def notes(self) -> tuple[str, ...]:
        """Return lines that say what was found."""
        if self.method is None:
            return ()
        if not self.matrices:
            return (
                f"config: quantization_config says {self.method}, but no matrix is stored so: all "
                "are read as the floats that they are",
            )
        held = Counter(matrix.format.name for matrix in self.matrices.values() if matrix.format)
        reasons = Counter(matrix.reason for matrix in self.matrices.values() if not matrix.format)
        found = [f"{count} matrices hold {name}" for name, count in held.items()]
        found += [
            f"{count} matrices are read as floats ({reason})" for reason, count in reasons.items()
        ]
        return tuple(f"checkpoint quantized with {self.method}: {words}" for words in found)


NONE = QuantizedMatrices({}, frozenset(), None)


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
    problems += [
        f"stored twice: {shorten(name)}, as it is and in {shorten(matrix.pieces[0])}"
        for name, matrix in matrices.items()
        if name in tensors.entries and name not in pieces
    ]
    # Some writers give every quantized linear a bias, of zeros where the model has none.
    for name in matrices:
        bias = f"{name.removesuffix('.weight')}.bias"
        idle = bias in tensors.entries and bias not in expected
        if idle and not to_float32(tensors.read(bias)).any():
            pieces.add(bias)
    return QuantizedMatrices(matrices, frozenset(pieces), str(method))
