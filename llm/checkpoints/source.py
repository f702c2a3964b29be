"""What an opened checkpoint is, whatever its file format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import Array
from edge_llm.llm.config import ModelConfig, shorten
from edge_llm.llm.registry import parameter_shapes
from edge_llm.program.documents import GenerationDefaults

Shape = tuple[int, ...]
MAX_LINES = 100  # of an error


@dataclass(frozen=True, slots=True)
class TokenizerDirectory:
    """A folder with tokenizer files: ``tokenizer.json``, ``tokenizer.model`` or tiktoken ranks."""

    path: Path


@dataclass(frozen=True, slots=True)
class TokenizerMetadata:
    """The metadata of a GGUF file: ``tokenizer.ggml.*`` keys to str, int, float, bool or lists."""

    values: Mapping[str, object]


TokenizerSource = TokenizerDirectory | TokenizerMetadata


@dataclass(frozen=True, slots=True)
class Integers:
    """A matrix as the checkpoint's own int4 numbers: the weight is ``q * scales``, zero point 0.

    ``q`` is int8 [N, K] in [-8, 7], ``scales`` float32 [N, K / group] (each exact in float16, of
    either sign), ``group`` the columns that share a scale: 32, 64 or 128."""

    q: NDArray[np.int8]
    scales: NDArray[np.float32]
    group: int


def _no_integers(name: str) -> Integers:
    raise CheckpointError(f"{name} is not stored as integers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checked checkpoint: every parameter of its family is there with the right shape, and
    nothing else is.

    Attributes:
        name: for people; the folder's or the file's own.
        shapes: parameter name in the module -> shape; tied parameters are not listed.
        read: reads one tensor; use ``tensor``.
        sources: the files it consists of, for provenance hashes.
        unread_config_keys: config keys that nothing has read and that are not known as harmless.
        license: an SPDX-like name where the checkpoint states one.
        integer_groups: parameters that are stored as symmetric int4 groups -> the group's size;
            ``integers`` reads one, while ``tensor`` gives the same values as floats.
        notes: lines for the export report.
    """

    name: str
    config: ModelConfig
    shapes: Mapping[str, Shape]
    read: Callable[[str], Array]
    generation: GenerationDefaults
    tokenizer: TokenizerSource
    sources: tuple[Path, ...]
    unread_config_keys: tuple[str, ...]
    license: str | None
    integer_groups: Mapping[str, int] = field(default_factory=dict)
    integers: Callable[[str], Integers] = _no_integers
    notes: tuple[str, ...] = ()

    def tensor(self, name: str) -> Array:
        """Return one parameter, read now, in the checkpoint's dtype, one of ``arrays.FLOATS``
        (float32 where it was quantized). It may be a read-only view of the file, not to be written
        to, and to be copied by `detached` before it is used.

        Raises:
            CheckpointError: no such parameter, or the file can no longer be read.
        """
        if name not in self.shapes:
            raise CheckpointError(f"{self.name} has no parameter {name!r}")
        return self.read(name)


def check_parameters(
    config: ModelConfig, got: Mapping[str, Shape], where: str, problems: list[str]
) -> dict[str, Shape]:
    """The parameters that ``config`` asks for; ``got`` must hold exactly those.

    ``problems`` are lines found before, which go into the same error.

    Raises:
        CheckpointError: lists the missing, left-over and misshapen tensors.
    """
    expected = parameter_shapes(config)
    lines = list(problems)
    for name, shape in expected.items():
        if name not in got:
            lines.append(f"missing: {name}, expected {list(shape)}")
        elif got[name] != shape:
            lines.append(f"shape: {name}: got {list(got[name])}, expected {list(shape)}")
    for name in sorted(set(got) - set(expected)):
        lines.append(f"left over: {shorten(name)} {list(got[name])}")
    if lines:
        listing = "".join(f"\n  {line}" for line in lines[:MAX_LINES])
        more = f"\n  and {len(lines) - MAX_LINES} more" if len(lines) > MAX_LINES else ""
        raise CheckpointError(f"{where} does not hold a {config.family} model:{listing}{more}")
    return expected
