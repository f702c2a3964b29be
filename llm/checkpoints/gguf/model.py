"""A GGUF model in one file or in several parts: its metadata, and its tensors decoded by name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ExportError
from edge_llm.llm.checkpoints.arrays import Array
from edge_llm.llm.checkpoints.detached import detached_bytes
from edge_llm.llm.checkpoints.gguf.blocks import BLOCK_FORMATS, UNSUPPORTED_TYPES
from edge_llm.llm.checkpoints.gguf.file import GGUFFile, TensorEntry, read_gguf_file
from edge_llm.llm.checkpoints.gguf.integers import INTEGER_BLOCKS
from edge_llm.llm.checkpoints.source import Shape
from edge_llm.llm.config import is_integer, shorten
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers

# As llama.cpp's gguf-split names the parts.
PART_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
MAX_PARTS = 1024


def first_parts(paths: list[Path]) -> list[Path]:
    """Return one path for each model: of parts whose names belong together the first that is
    there."""
    models: dict[tuple[str, ...], Path] = {}
    for path in sorted(paths):
        part = PART_NAME.fullmatch(path.name)
        models.setdefault((part[1], part[3]) if part else (path.name,), path)
    return list(models.values())


@dataclass(frozen=True, slots=True)
class GGUFModel:
    """``path`` is the file that was asked for, ``metadata`` that of the first part, ``owners`` has
    the part that holds each tensor."""

    path: Path
    parts: tuple[GGUFFile, ...]
    metadata: Mapping[str, object]
    owners: Mapping[str, GGUFFile]

    @property
    def name(self) -> str:
        """Return the file's name without its ending and the number of the part."""
        part = PART_NAME.fullmatch(self.path.name) if len(self.parts) > 1 else None
        return part[1] if part else self.path.stem

    @property
    def architecture(self) -> str:
        """Return ``general.architecture``; it is empty where the file has no text there."""
        said = self.metadata.get("general.architecture")
        return said if isinstance(said, str) else ""

    def __contains__(self, name: str) -> bool:
        return name in self.owners

    def entry(self, name: str) -> TensorEntry:
        """Return the directory's entry of a tensor."""
        return self.owners[name].tensors[name]

    def shape(self, name: str) -> Shape:
        """Return a tensor's shape, outermost first."""
        return self.entry(name).shape

    def check_complete(self) -> None:
        """Check that every part is as long as its tensors need.

        Raises:
            CheckpointError: one is not, as a download that was broken off.
        """
        for part in self.parts:
            entries = (entry for entry in part.tensors.values() if entry.type in BLOCK_FORMATS)
            need = max((entry.offset + _stored_bytes(entry) for entry in entries), default=0)
            if need > len(part.data):
                raise CheckpointError(
                    f"{part.path} is truncated: it needs {need} bytes and has {len(part.data)}",
                    hint="the file was cut short, by a download that broke off perhaps: fetch it "
                    "again",
                )

    def problem(self, name: str) -> str | None:
        """Return why a tensor of a complete file cannot be decoded, or None."""
        entry = self.entry(name)
        block = BLOCK_FORMATS.get(entry.type)
        if block is None:
            got = UNSUPPORTED_TYPES.get(entry.type, f"type {entry.type}")
            expected = ", ".join(known.name for known in BLOCK_FORMATS.values())
            return f"type: {shorten(name)}: got {got}, expected one of {expected}"
        if entry.shape[-1] % block.size:
            return (
                f"shape: {shorten(name)}: got rows of {entry.shape[-1]}, "
                f"expected a multiple of {block.size} for {block.name}"
            )
        return None

    def decode(self, name: str, expert: int | None = None) -> Array:
        """Return a tensor, or the matrix of one ``expert`` in a stack of them, in its own float
        type, or in float32 where it is quantized."""
        entry = self.entry(name)
        shape = entry.shape if expert is None else entry.shape[1:]
        return BLOCK_FORMATS[entry.type].decode(self._blocks(name, expert)).reshape(shape)

    def type_name(self, name: str) -> str:
        """Return ggml's name of a tensor's type, which must be one that can be decoded."""
        return BLOCK_FORMATS[self.entry(name).type].name

    def integer_format(self, name: str) -> WeightFormat | None:
        """Return the format in which a program can hold a tensor's own integers, if there is one
        and the tensor is a matrix or a stack of them."""
        entry = self.entry(name)
        blocks = INTEGER_BLOCKS.get(entry.type)
        return None if blocks is None or len(entry.shape) not in (2, 3) else blocks.format

    def integers(self, name: str, expert: int | None = None) -> Integers:
        """Return the numbers of a tensor that has an integer format, or of one ``expert`` in it.

        Raises:
            CheckpointError: a scale or minimum that is not finite, or a code beyond the format.
        """
        entry = self.entry(name)
        try:
            return INTEGER_BLOCKS[entry.type].read(self._blocks(name, expert), entry.shape[-2])
        except ExportError as exc:
            raise CheckpointError(
                f"{self.path}: {name}: {exc}",
                hint="`--set requantize=true` rounds its weights anew instead of keeping them",
            ) from exc

    def _blocks(self, name: str, expert: int | None) -> NDArray[np.uint8]:
        entry = self.entry(name)
        begin, size = entry.offset, _stored_bytes(entry)
        if expert is not None:
            size //= entry.shape[0]
            begin += expert * size
        raw = self.owners[name].data[begin : begin + size]
        return detached_bytes(raw).reshape(-1, BLOCK_FORMATS[entry.type].bytes)


def read_gguf_model(path: Path) -> GGUFModel:
    """Return the model that a file is, or is a part of.

    Raises:
        CheckpointError: a damaged file, or parts that are missing or do not belong together.
    """
    asked = read_gguf_file(path)
    count = asked.metadata.get("split.count", 0)
    if count in (0, 1):
        return GGUFModel(path, (asked,), asked.metadata, dict.fromkeys(asked.tensors, asked))
    if not is_integer(count) or not 0 <= count <= MAX_PARTS:
        raise CheckpointError(
            f"{path}: split.count: got {shorten(count)}, expected an integer from 0 to {MAX_PARTS}"
        )
    name = PART_NAME.fullmatch(path.name)
    if name is None or int(name[3]) != count:
        raise CheckpointError(
            f"{path} is one of {count} parts of a model, expected a name like "
            "NAME-00001-of-00003.gguf that says which"
        )
    paths = [
        path.with_name(f"{name[1]}-{index:05d}-of-{name[3]}.gguf") for index in range(1, count + 1)
    ]
    missing = [part.name for part in paths if not part.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CheckpointError(
            f"{path} is one of {count} parts, of which {', '.join(missing[:3])}{more} "
            f"{'is' if len(missing) == 1 else 'are'} missing in {path.parent}"
        )
    parts = tuple(asked if part == path else read_gguf_file(part) for part in paths)
    owners: dict[str, GGUFFile] = {}
    for index, part in enumerate(parts):
        got = part.metadata.get("split.no"), part.metadata.get("split.count")
        if got != (index, count):
            raise CheckpointError(
                f"{part.path}: got part {shorten(got[0])} of {shorten(got[1])}, "
                f"expected {index} of {count} (counted from 0)"
            )
        twice = sorted(owners.keys() & part.tensors.keys())
        if twice:
            raise CheckpointError(
                f"{part.path} holds {shorten(twice[0])}, and so does another part"
            )
        owners |= dict.fromkeys(part.tensors, part)
    total = parts[0].metadata.get("split.tensors.count", len(owners))
    if total != len(owners):
        raise CheckpointError(
            f"{path}: got {len(owners)} tensors in all parts, expected {shorten(total)}"
        )
    return GGUFModel(path, parts, parts[0].metadata, owners)


def _stored_bytes(entry: TensorEntry) -> int:
    block = BLOCK_FORMATS[entry.type]
    return math.prod(entry.shape) // block.size * block.bytes
