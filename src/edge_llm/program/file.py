"""Reading a program file: one read-only memory map, checked before anyone sees it."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.abi import BPE_PROBES
from edge_llm.errors import ProgramError
from edge_llm.program.check import check_documents, check_plan
from edge_llm.program.container import (
    DIGESTS_KEY,
    LENGTH_BYTES,
    Header,
    TensorSpec,
    decode_header,
    documents_digest,
    header_bytes,
)
from edge_llm.program.cost import tensor_bytes
from edge_llm.program.documents import Documents
from edge_llm.program.plan import Plan, Weight
from edge_llm.program.serialize import PREFIX, documents_from_metadata, plan_from_text
from edge_llm.program.strict import as_object, as_str, fields, parse_json
from edge_llm.program.version import check_version

PLAN_KEY = PREFIX + "plan"
TOKENIZER = "tokenizer.json"
MAX_TOKENIZER = 128 * 1024 * 1024  # bytes

# What lets a tokenizer load without its JSON: dtype and dimensions by name. All or none are there,
# but for the last.
TOKENIZER_TABLES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "tokenizer.skeleton": ("U8", 1),
        "tokenizer.units": ("I32", 1),
        "tokenizer.offsets": ("I32", 1),
        "tokenizer.texts": ("U8", 1),
        "tokenizer.merges": ("I32", 2),
        "tokenizer.words": ("I32", 1),
    }
)
_OPTIONAL_TABLES = {"tokenizer.words"}

_NUMPY: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"U8": np.dtype("<u1"), "I32": np.dtype("<i4"), "F32": np.dtype("<f4")}
)


@dataclass(frozen=True, slots=True)
class Golden:
    """The program's answers when it was exported. P prompts; -1 pads short rows at the end.

    ``tokens`` [P, n] int32: prompts. ``next`` [P, m] int32: their greedy continuations.
    ``top_ids`` [P, k] int32 and ``top_logits`` [P, k] float32: the likeliest ids at the last
    position of each prompt, best first.
    """

    tokens: NDArray[np.int32]
    next: NDArray[np.int32]
    top_ids: NDArray[np.int32]
    top_logits: NDArray[np.float32]


GOLDEN: Mapping[str, str] = MappingProxyType(
    {
        "golden.tokens": "I32",
        "golden.next": "I32",
        "golden.top_ids": "I32",
        "golden.top_logits": "F32",
    }
)


class Program:
    """An open program file. Everything but the bytes of packed weights has been checked.

    Arrays are views into the file: they stay valid while they live, even after `close`.
    """

    path: Path
    plan: Plan
    documents: Documents
    file_bytes: int
    tensors: Mapping[str, TensorSpec]

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        """Takes over ``mapping``; use `Program.open`."""
        self.path = path
        self.file_bytes = len(mapping)
        self._mapping = mapping
        start = mapping[: LENGTH_BYTES + 1]
        self._header = decode_header(
            mapping[: header_bytes(start, self.file_bytes)], self.file_bytes
        )
        self.tensors = MappingProxyType(
            {name: entry.spec for name, entry in self._header.entries.items()}
        )
        metadata = self._header.metadata
        check_version(metadata)
        if PLAN_KEY not in metadata:
            raise ProgramError(f"the metadata lacks {PLAN_KEY}")
        self.plan = plan_from_text(metadata[PLAN_KEY])
        self.documents = documents_from_metadata(metadata)
        check_plan(self.plan)
        check_documents(self.documents, self.plan)
        check_tensors(self.plan, self.tensors)
        self._digests = _digests(self._header)
        self._verify(sorted(self.tensors.keys() - _packed(self.plan) - self._unread()))
        _check_golden(self.golden, self.plan.vocab)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, huge_pages: bool = True) -> Program:
        """Maps and checks a file. ``huge_pages``: the kernel is asked to hold it in huge pages,
        which it can where it reads the file from now on.

        Raises:
            ProgramError: it cannot be read, or is truncated, damaged, hostile or too new.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    raise ProgramError(f"{path}: the file is empty")
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if huge_pages:
                _advise(mapping, "MADV_HUGEPAGE")
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            raise ProgramError(f"{path}: cannot be read ({reason})") from exc
        try:
            return cls(path, mapping)
        except ProgramError as exc:
            raise ProgramError(f"{path}: {exc}", hint=exc.hint) from exc

    def release_pages(self) -> None:
        """Gives back the memory of the file's pages; whoever reads them again gets them again."""
        _advise(self._mapping, "MADV_DONTNEED")

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps the file, or leaves that to the last array that still looks into it."""
        with contextlib.suppress(BufferError):
            self._mapping.close()

    @property
    def tokenizer_json(self) -> bytes:
        """The bytes of a Hugging Face ``tokenizer.json``.

        Raises:
            ProgramError: they are damaged (said by `open` where no tables stand for them).
        """
        self._verify(self._unread())
        return self._bytes(TOKENIZER).tobytes()

    @property
    def tokenizer_tables(self) -> Mapping[str, NDArray[Any]]:
        """Views of the tensors that a tokenizer loads fast from, by name; empty if there are
        none. What they say has not been checked (`tokenizers/tables/merger.py` does)."""
        return {name: self.tensor(name) for name in TOKENIZER_TABLES if name in self.tensors}

    @property
    def golden(self) -> Golden | None:
        """The recorded answers, if the file has them."""
        if "golden.tokens" not in self.tensors:
            return None
        return Golden(*(self.tensor(name) for name in GOLDEN))

    def tensor(self, name: str) -> NDArray[Any]:
        """A read-only view of a tensor in its own dtype and shape.

        Raises:
            ProgramError: there is no such tensor.
        """
        if name not in self.tensors:
            raise ProgramError(f"{self.path}: no tensor {name!r}")
        spec = self.tensors[name]
        return self._bytes(name).view(_NUMPY[spec.dtype]).reshape(spec.shape)

    def weight_data(self, weight: Weight) -> NDArray[np.uint8]:
        """The stored bytes of a weight, [bytes] uint8, read-only, 64-byte aligned."""
        return self._bytes(weight.tensor)

    def verify_digests(self) -> None:
        """Compares every tensor with its digest (reads the whole file).

        Raises:
            ProgramError: a tensor is damaged; the message names it.
        """
        self._verify(self.tensors)

    def _unread(self) -> set[str]:
        """Return what the run time needs tables instead of."""
        return {TOKENIZER} if self.tokenizer_tables else set()

    def _bytes(self, name: str) -> NDArray[np.uint8]:
        entry = self._header.entries[name]
        begin = self._header.data_begin + entry.begin
        return np.frombuffer(self._mapping, np.uint8, entry.spec.nbytes, begin)

    def _verify(self, names: Iterable[str]) -> None:
        for name in names:
            if hashlib.sha256(self._bytes(name).data).hexdigest() != self._digests[name]:
                raise ProgramError(f"tensor {name!r} is damaged (its digest differs)")


def check_tensors(plan: Plan, tensors: Mapping[str, TensorSpec]) -> None:
    """Checks that the stored tensors are the ones that plan and reader expect.

    Raises:
        ProgramError: a tensor is missing, or has another dtype or size.
    """
    for weight in plan.weights:
        panels = weight.format.is_panel
        size = (tensor_bytes(weight),) if panels else weight.shape
        _expect(tensors, TensorSpec(weight.tensor, "U8" if panels else "F32", size))
    tokenizer = tensors.get(TOKENIZER)
    if tokenizer is None or tokenizer.dtype != "U8" or len(tokenizer.shape) != 1:
        raise ProgramError(f"tensor {TOKENIZER!r}: expected U8 bytes")
    if tokenizer.nbytes > MAX_TOKENIZER:
        raise ProgramError(f"tensor {TOKENIZER!r}: {tokenizer.nbytes} bytes are too many")
    _check_tables(tensors)
    present = [tensors[name] for name in GOLDEN if name in tensors]
    if present and len(present) != len(GOLDEN):
        raise ProgramError("the golden record is incomplete")
    for spec in present:
        if spec.dtype != GOLDEN[spec.name] or len(spec.shape) != 2:
            raise ProgramError(
                f"tensor {spec.name!r}: expected {GOLDEN[spec.name]}, two dimensions"
            )
        if spec.shape[0] != present[0].shape[0]:
            raise ProgramError(f"tensor {spec.name!r}: another number of prompts")
    if present and present[2].shape != present[3].shape:
        raise ProgramError("golden.top_ids and golden.top_logits differ in shape")


def _check_tables(tensors: Mapping[str, TensorSpec]) -> None:
    present = TOKENIZER_TABLES.keys() & tensors.keys()
    if present and (missing := TOKENIZER_TABLES.keys() - _OPTIONAL_TABLES - present):
        raise ProgramError(f"tensor {min(missing)!r} is missing beside {min(present)!r}")
    for name in sorted(present):
        spec, (dtype, dimensions) = tensors[name], TOKENIZER_TABLES[name]
        if spec.dtype != dtype or len(spec.shape) != dimensions:
            raise ProgramError(
                f"tensor {name!r} is {spec.dtype}{list(spec.shape)}, "
                f"expected {dtype}, dimensions: {dimensions}"
            )
        if spec.nbytes > MAX_TOKENIZER:
            raise ProgramError(f"tensor {name!r}: {spec.nbytes} bytes are too many")
    for name, columns in (("tokenizer.merges", 4), ("tokenizer.words", 1)):
        shape = tensors[name].shape if name in present else (BPE_PROBES + 1, columns)
        if shape[0] <= BPE_PROBES or shape[1:] not in ((), (columns,)):
            raise ProgramError(
                f"tensor {name!r} has shape {list(shape)}, "
                f"expected more than {BPE_PROBES} rows of {columns}"
            )


def _expect(tensors: Mapping[str, TensorSpec], expected: TensorSpec) -> None:
    got = tensors.get(expected.name)
    if got is None:
        raise ProgramError(f"tensor {expected.name!r} is missing")
    if got != expected:
        raise ProgramError(
            f"tensor {expected.name!r} is {got.dtype}{list(got.shape)}, "
            f"expected {expected.dtype}{list(expected.shape)}"
        )


def _packed(plan: Plan) -> set[str]:
    return {weight.tensor for weight in plan.weights if weight.format.is_panel}


def _advise(mapping: mmap.mmap, name: str) -> None:
    """An optimization: a system without this advice, or that refuses it, does without."""
    if (advice := getattr(mmap, name, None)) is not None:
        with contextlib.suppress(OSError):
            mapping.madvise(advice)


def _digests(header: Header) -> dict[str, str]:
    text = header.metadata.get(DIGESTS_KEY)
    if text is None:
        raise ProgramError(f"the metadata lacks {DIGESTS_KEY}")
    record = fields(parse_json(text, "digests"), "digests", ("documents", "tensors"))
    tensors = as_object(record["tensors"], "digests.tensors")
    if tensors.keys() != header.entries.keys():
        raise ProgramError("digests.tensors: does not list exactly the tensors of the file")
    if record["documents"] != documents_digest(header.metadata):
        raise ProgramError("the metadata is damaged (its digest differs)")
    return {name: as_str(value, f"digests.tensors[{name!r}]") for name, value in tensors.items()}


def _check_golden(golden: Golden | None, vocab: int) -> None:
    if golden is None:
        return
    for name, ids in (
        ("tokens", golden.tokens),
        ("next", golden.next),
        ("top_ids", golden.top_ids),
    ):
        if ids.min() < -1 or ids.max() >= vocab:
            raise ProgramError(f"golden.{name}: an id outside the vocabulary of {vocab}")
    if not np.isfinite(golden.top_logits).all():
        raise ProgramError("golden.top_logits: not finite")
