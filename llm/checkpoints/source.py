"""An opened checkpoint, whatever its file format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import Array
from edge_llm.llm.config import shorten
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.registry import parameter_shapes
from edge_llm.program.documents import GenerationDefaults, PoolingKind
from edge_llm.program.formats import Activations, WeightFormat
from edge_llm.program.integers import Integers

Shape = tuple[int, ...]
MAX_LINES = 100  # of an error
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"
PROJECTION = "projection."  # of hidden states to vectors


@dataclass(frozen=True, slots=True)
class TokenizerDirectory:
    """A folder with tokenizer files: ``tokenizer.json``, ``tokenizer.model`` or tiktoken ranks."""

    path: Path


@dataclass(frozen=True, slots=True)
class TokenizerMetadata:
    """The metadata of a GGUF file: ``tokenizer.ggml.*`` keys to str, int, float, bool or lists."""

    values: Mapping[str, object]


TokenizerSource = TokenizerDirectory | TokenizerMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """What a checkpoint says about vectors and reranking.

    Attributes:
        pooling: which hidden states are a text's vector; None: it says nothing.
        query, document: what comes in front of a text that asks, and of one that is searched.
        judges: it is a language model that was trained to tell whether a document answers a query.
        yes_no: the two tokens with which it does, where it says so.
        projection: rows and columns of the matrices that hidden states are multiplied with, one
            after the other; they are parameters, called as `projection_name` says.
    """

    pooling: PoolingKind | None
    query: str = ""
    document: str = ""
    judges: bool = False
    yes_no: tuple[int, int] | None = None
    projection: tuple[tuple[int, int], ...] = ()


def projection_name(number: int) -> str:
    """Return the name of a matrix of a projection, counted from 0."""
    return f"{PROJECTION}{number}.weight"


class Rowwise(Protocol):
    """A matrix [N, K] that is stored in another form."""

    def rows(self, index: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows in float32."""
        ...


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
        integer_formats: parameters that are stored as integers which a program can hold
            too -> the format of those; ``integers`` reads one, while ``tensor`` gives the same
            values as floats.
        activations: how what those are multiplied with was rounded in their training, where it was.
        inexact: those of ``integer_formats`` whose integers give nearly these values, with scales
            rounded to the format's or codes moved into its range -> what reads the values.
        stored_as: parameters -> how they are stored, in the words of the checkpoint's own format.
        retrieval: what it says about vectors and reranking, if anything.
        notes: lines for the export report.
    """

    name: str
    config: DecoderConfig
    shapes: Mapping[str, Shape]
    read: Callable[[str], Array]
    generation: GenerationDefaults
    tokenizer: TokenizerSource
    sources: tuple[Path, ...]
    unread_config_keys: tuple[str, ...]
    license: str | None
    integer_formats: Mapping[str, WeightFormat] = field(default_factory=dict)
    integers: Callable[[str], Integers] = _no_integers
    activations: Activations | None = None
    inexact: Mapping[str, Callable[[], Rowwise]] = field(default_factory=dict)
    stored_as: Mapping[str, str] = field(default_factory=dict)
    retrieval: Retrieval | None = None
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


PREDICTING = "the layers that predict further tokens"


def expected_shapes(config: DecoderConfig, retrieval: Retrieval | None) -> dict[str, Shape]:
    """Return the parameters that ``config`` and ``retrieval`` ask for."""
    projection = retrieval.projection if retrieval else ()
    named = {projection_name(number): shape for number, shape in enumerate(projection)}
    return parameter_shapes(config) | named


def check_parameters(
    config: DecoderConfig,
    got: Mapping[str, Shape],
    where: str,
    problems: list[str],
    retrieval: Retrieval | None = None,
) -> dict[str, Shape]:
    """Return `expected_shapes`; ``got`` must hold exactly those.

    ``problems`` are lines found before, which go into the same error.

    Raises:
        CheckpointError: lists the missing, left-over and misshapen tensors.
    """
    expected = expected_shapes(config, retrieval)
    lines = list(problems)
    width = config.hidden_size
    for number, (rows, columns) in enumerate(retrieval.projection if retrieval else ()):
        if columns != width:
            lines.append(f"{projection_name(number)}: takes {columns} columns, gets {width}")
        width = rows
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
        raise CheckpointError(
            f"{where} does not hold a {config.model_type} model:{listing}{more}",
            hint=_no_head(config, got),
        )
    return expected


def _no_head(config: DecoderConfig, got: Mapping[str, Shape]) -> str | None:
    """A hint where the table could stand in for the head that is missing."""
    if config.tie_word_embeddings or HEAD in got or TABLE not in got:
        return None
    return (
        f"{HEAD} is missing, and the config's tie_word_embeddings is false: set it to true if "
        f"{TABLE} is meant to serve as the head, else add the tensor"
    )
