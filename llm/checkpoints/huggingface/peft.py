"""LoRA adapters in PEFT's folder layout: what their config says, and the pairs of their tensors.

An adapter holds two thin matrices for each adapted one: A [r, K] and B [N, r]. What it adds is

    scale * B A,    scale = alpha / r  (alpha / sqrt(r): rsLoRA)

An embedding W [rows, dim] has A [r, rows] and B [dim, r], and gains (B A) transposed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.arrays import to_float32
from edge_llm.llm.checkpoints.files import read_json_object
from edge_llm.llm.checkpoints.huggingface.open import ADAPTER, inner_name
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors, open_tensor_file
from edge_llm.llm.config import ConfigReader, is_integer, is_number, shorten

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
Number = TypeVar("Number", int, float)

PREFIX = "base_model.model."
# suffixes of the pair (A, B); the second is an embedding's
LINEAR_PAIR = (".lora_A.weight", ".lora_B.weight")
EMBEDDING_PAIR = (".lora_embedding_A", ".lora_embedding_B")


@dataclass(frozen=True, slots=True)
class Scaling:
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
class Pair:
    """The tensors ``a`` and ``b`` of one adapted module, which are to have ``rank``."""

    module: str
    a: str
    b: str
    rank: int
    scale: float
    embedding: bool


@dataclass(frozen=True, slots=True)
class PeftFolder:
    """An adapter as PEFT saves it. ``base`` is the name of the model that it was trained on, if it
    says so."""

    path: Path
    tensors: Tensors
    scaling: Scaling
    base: str | None

    @property
    def config_path(self) -> Path:
        """The file of its config."""
        return self.path / ADAPTER

    @property
    def weights_path(self) -> Path:
        """The file of its tensors."""
        return self.path / WEIGHTS

    def pairs(self) -> Iterator[Pair]:
        """Yield the pairs; the second of a pair may be missing.

        Raises:
            CheckpointError: two of them adapt one module.
        """
        found: dict[str, str] = {}
        for ends in (LINEAR_PAIR, EMBEDDING_PAIR):
            for a in [name for name in self.tensors.entries if name.endswith(ends[0])]:
                stem = a.removesuffix(ends[0])
                module = _inner(stem.removeprefix(PREFIX))
                if (other := found.setdefault(module, a)) != a:
                    raise CheckpointError(
                        f"{self.path}: {shorten(other)} and {shorten(a)} adapt the same module"
                    )
                rank, scale = self.scaling.rank_of(module), self.scaling.scale_of(module)
                yield Pair(module, a, stem + ends[1], rank, scale, ends is EMBEDDING_PAIR)

    def read(self, name: str, scale: float = 1.0) -> NDArray[np.float32]:
        """Return the numbers of a tensor, times ``scale``.

        Raises:
            CheckpointError: they can no longer be read, or are not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            values = to_float32(self.tensors.read(name)) * np.float32(scale)
        if not np.isfinite(values).all():
            raise CheckpointError(f"{self.path}: {shorten(name)} has values that are not finite")
        return np.asarray(values, np.float32)

    def problems(self, pair: Pair, shape: tuple[int, ...]) -> list[str]:
        """Return what is wrong with a pair that adapts a matrix [N, K] of this ``shape``."""
        n, k = shape[::-1] if pair.embedding else shape
        return [
            f"{shorten(piece)}: got {self._shape(piece)}, expected {list(expected)}"
            for piece, expected in ((pair.a, (pair.rank, k)), (pair.b, (n, pair.rank)))
            if self._shape(piece) != list(expected)
        ]

    def _shape(self, name: str) -> list[int] | None:
        entry = self.tensors.entries.get(name)
        return None if entry is None else list(entry.shape)


def copied_parameter(tensor: str) -> str:
    """Return the parameter that a tensor repeats: PEFT stores embedding and head beside their
    adapters."""
    return _inner(tensor.removeprefix(PREFIX).replace(".base_layer.", "."))


def open_peft(folder: str | Path) -> PeftFolder:
    """Return the adapter in a folder; its numbers are read when they are wanted.

    Raises:
        CheckpointError: a folder that is damaged, or none.
        ConfigError: a kind of adapter that is not supported.
    """
    path = Path(folder).expanduser()
    tensors = _open_weights(path)
    return PeftFolder(path, tensors, *_read_config(path / ADAPTER))


def _inner(name: str) -> str:
    return inner_name(f"{name}.").removesuffix(".")


def _open_weights(path: Path) -> Tensors:
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder; expected one with {ADAPTER} and {WEIGHTS}")
    if not (path / WEIGHTS).is_file():
        got = f"; got {PICKLED}, which is never unpickled" if (path / PICKLED).is_file() else ""
        raise CheckpointError(f"{path} has no adapter: expected {ADAPTER} and {WEIGHTS}{got}")
    return open_tensor_file(path / WEIGHTS)


def _read_config(path: Path) -> tuple[Scaling, str | None]:
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
    scaling = Scaling(
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
