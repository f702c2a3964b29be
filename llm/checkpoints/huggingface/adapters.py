"""LoRA adapters in PEFT's folder layout, merged into the weights of a checkpoint as they are read.

An adapter holds two thin matrices for each adapted one: A [r, K] and B [N, r]. The merged weight is

    W + sum over adapters of weight * scale * B A,    scale = alpha / r  (alpha / sqrt(r): rsLoRA)

in float32. An embedding W [rows, dim] has A [r, rows] and B [dim, r], and gains (B A) transposed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.arrays import Array, to_float32
from edge_llm.llm.checkpoints.detached import detached, same_values
from edge_llm.llm.checkpoints.files import read_json_object
from edge_llm.llm.checkpoints.huggingface.open import ADAPTER
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors, open_tensor_file
from edge_llm.llm.checkpoints.source import Checkpoint, Shape
from edge_llm.llm.config import ConfigReader, is_integer, is_number, shorten
from edge_llm.llm.registry import shared_parameters

WEIGHTS, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
# Ways to begin training that leave the base weights as they are; others (PiSSA, LoftQ) do not.
KEPT_INITS = (True, False, "gaussian", "eva", "orthogonal")
# Where training put adapters (the tensors tell), or what matters to training alone.
HARMLESS_KEYS = (
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
)
MAX_RANK = 2**14
_PRODUCT = 2**22  # elements of B A at a time
FLOAT32_MAX = float(np.finfo(np.float32).max)
Number = TypeVar("Number", int, float)

PREFIX = "base_model.model."
# suffixes of the pair (A, B); the second is an embedding's
LINEAR_PAIR = (".lora_A.weight", ".lora_B.weight")
EMBEDDING_PAIR = (".lora_embedding_A", ".lora_embedding_B")


@dataclass(frozen=True, slots=True)
class _Scaling:
    """The weight of an adapter: alpha and rank, with exceptions by the end of a module's name."""

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    root: bool

    def rank_of(self, module: str) -> int:
        return _exception(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        rank = self.rank_of(module)
        alpha = _exception(self.alphas, module, self.alpha)
        return alpha / math.sqrt(rank) if self.root else alpha / rank


@dataclass(frozen=True, slots=True)
class _Delta:
    """The change that one adapter makes to one parameter: ``factor`` times B A."""

    tensors: Tensors
    a: str
    b: str
    factor: float
    embedding: bool

    def add_to(self, weight: NDArray[np.float32]) -> None:
        """Add to ``weight`` [N, K], in place and a few rows at a time."""
        a, b = (to_float32(self.tensors.read(name)) for name in (self.a, self.b))
        left, right = (a.T, b.T) if self.embedding else (b, a)
        step = max(_PRODUCT // weight.shape[1], 1)
        for begin in range(0, len(weight), step):
            rows = slice(begin, begin + step)
            weight[rows] += (left[rows] @ right) * np.float32(self.factor)


def with_adapters(
    checkpoint: Checkpoint, adapters: Sequence[tuple[str | Path, float]]
) -> Checkpoint:
    """Return ``checkpoint`` with LoRA adapters (folder, weight) merged into what it reads. Adapted
    parameters come in float32; their integers, if the checkpoint holds some, no longer count.

    Raises:
        CheckpointError: a folder that is damaged, or that adapts what the model has not.
        ConfigError: a kind of adapter that is not supported.
    """
    tied = shared_parameters(checkpoint.config)
    shared = {*tied, *tied.values()}
    deltas: dict[str, list[_Delta]] = {}
    notes = list(checkpoint.notes)
    sources = list(checkpoint.sources)
    for folder, weight in adapters:
        path = Path(folder).expanduser()
        config_path, tensors = path / ADAPTER, _open_weights(path)
        scaling, base = _read_config(config_path)
        copies = _base_copies(path, tensors, checkpoint, tied)
        found = _deltas(path, tensors, scaling, weight, checkpoint.shapes, shared, copies)
        for name, delta in found.items():
            deltas.setdefault(name, []).append(delta)
        sources += [config_path, path / WEIGHTS]
        trained = f", trained on {shorten(base)}" if base else ""
        notes.append(
            f"adapter {path.resolve().name} merged with weight {weight:g} into {len(found)} "
            f"matrices{trained}"
        )

    def read(name: str) -> Array:
        array = checkpoint.read(name)
        if name not in deltas:
            return array
        merged = to_float32(detached(array))
        for delta in deltas[name]:
            delta.add_to(merged)
        return merged

    return replace(
        checkpoint,
        read=read,
        sources=tuple(sources),
        notes=tuple(notes),
        integer_formats={
            name: form for name, form in checkpoint.integer_formats.items() if name not in deltas
        },
    )


def _open_weights(path: Path) -> Tensors:
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder; expected one with {ADAPTER} and {WEIGHTS}")
    if not (path / WEIGHTS).is_file():
        got = f"; got {PICKLED}, which is never unpickled" if (path / PICKLED).is_file() else ""
        raise CheckpointError(f"{path} has no adapter: expected {ADAPTER} and {WEIGHTS}{got}")
    return open_tensor_file(path / WEIGHTS)


def _read_config(path: Path) -> tuple[_Scaling, str | None]:
    """Return how an adapter scales, and the name of the model that it was trained on."""
    values = read_json_object(path)
    reader = ConfigReader(values, str(path))
    kind = reader.get("peft_type")
    if kind != "LORA":
        raise ConfigError(f"{path}: peft_type: got {shorten(kind)}, expected 'LORA'")
    reader.neutral("fan_in_fan_out", False)
    reader.neutral("bias", "none")
    init = reader.get("init_lora_weights")
    if init is not None and not any(init is kept or init == kept for kept in KEPT_INITS):
        expected = ", ".join(repr(kept) for kept in KEPT_INITS)
        reader.problem(f"init_lora_weights: got {shorten(init)}, expected one of {expected}")
    scaling = _Scaling(
        rank=reader.integer("r", high=MAX_RANK),
        alpha=reader.positive("lora_alpha"),
        ranks={
            key: value
            for key, value in _patterns(reader, "rank_pattern").items()
            if is_integer(value)
        },
        alphas={key: float(value) for key, value in _patterns(reader, "alpha_pattern").items()},
        root=reader.flag("use_rslora", False),
    )
    for key in reader.finish(HARMLESS_KEYS):
        if values[key] not in (False, [], {}, ""):
            raise ConfigError(
                f"{path}: {key}: got {shorten(values[key])}, a kind of LoRA not supported"
            )
    base = values.get("base_model_name_or_path")
    return scaling, base if isinstance(base, str) else None


def _patterns(reader: ConfigReader, key: str) -> dict[str, int | float]:
    """Return exceptions by module: names, or ends of names behind a dot; regular expressions beyond
    that are refused, since a hostile one never ends."""
    value = reader.get(key)
    if not value:
        return {}
    if not isinstance(value, dict):
        reader.problem(f"{key}: got {shorten(value)}, expected an object")
        return {}
    found: dict[str, int | float] = {}
    for pattern, number in value.items():
        if not re.fullmatch(r"\^?[\w.]+", pattern):
            reader.problem(f"{key}: got the pattern {shorten(pattern)}, expected a module's name")
        elif not is_number(number) or not 0 < number < math.inf:
            reader.problem(f"{key}: {shorten(pattern)}: got {shorten(number)}, expected above 0")
        else:
            found[pattern] = number
    return found


def _exception(exceptions: Mapping[str, Number], module: str, usual: Number) -> Number:
    """Return the first that names ``module`` or its end; ``^`` means the whole name."""
    for pattern, value in exceptions.items():
        name = pattern.removeprefix("^")
        if module == name or (name == pattern and module.endswith(f".{name}")):
            return value
    return usual


def _base_copies(
    path: Path, tensors: Tensors, checkpoint: Checkpoint, tied: Mapping[str, str]
) -> set[str]:
    """Return the tensors that repeat weights of the model: PEFT stores those of embedding and head
    beside their adapters.

    Raises:
        CheckpointError: one holds other values, those of another model or trained ones.
    """
    copies: set[str] = set()
    for name in tensors.entries:
        parameter = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        parameter = tied.get(parameter, parameter)
        if parameter in checkpoint.shapes:
            if not same_values(tensors.view(name), checkpoint.tensor(parameter)):
                raise CheckpointError(
                    f"{path} holds {shorten(name)}, whose values differ from {parameter} of "
                    f"{checkpoint.name}, expected the same: it was trained on another model, or "
                    "trained that matrix as a whole, which is not supported"
                )
            copies.add(name)
    return copies


def _deltas(
    path: Path,
    tensors: Tensors,
    scaling: _Scaling,
    weight: float,
    shapes: Mapping[str, Shape],
    shared: set[str],
    copies: set[str],
) -> dict[str, _Delta]:
    """Return what the adapter adds to each parameter; ``copies`` are tensors that add nothing.

    Raises:
        CheckpointError: listing every tensor that fits no parameter."""
    lines: list[str] = []
    found: dict[str, _Delta] = {}
    left = set(tensors.entries) - copies
    for pair in (LINEAR_PAIR, EMBEDDING_PAIR):
        for a in [name for name in tensors.entries if name.endswith(pair[0])]:
            stem = a.removesuffix(pair[0])
            b = stem + pair[1]
            left -= {a, b}
            module = stem.removeprefix(PREFIX)
            name, rank = f"{module}.weight", scaling.rank_of(module)
            shape = shapes.get(name)
            if shape is None or len(shape) != 2:
                lines.append(f"unknown: {shorten(module)}")
                continue
            if name in shared:
                lines.append(f"tied: {module} shares its values, an adapter would part them")
                continue
            n, k = shape[::-1] if pair is EMBEDDING_PAIR else shape
            wrong = [
                f"{shorten(piece)}: got {_shape(tensors, piece)}, expected {list(expected)}"
                for piece, expected in ((a, (rank, k)), (b, (n, rank)))
                if _shape(tensors, piece) != list(expected)
            ]
            lines += wrong
            factor = weight * scaling.scale_of(module)
            if not abs(factor) <= FLOAT32_MAX:
                lines.append(f"scale: {module}: got {factor:g}, which no float32 holds")
            elif not wrong:
                found[name] = _Delta(tensors, a, b, factor, pair is EMBEDDING_PAIR)
    lines += [f"left over: {shorten(name)}" for name in sorted(left)]
    if not found and not lines:
        lines.append("no tensors")
    if lines:
        listing = "".join(f"\n  {line}" for line in lines)
        raise CheckpointError(f"{path} does not adapt this model:{listing}")
    return found


def _shape(tensors: Tensors, name: str) -> list[int] | None:
    entry = tensors.entries.get(name)
    return None if entry is None else list(entry.shape)
