"""Reading a program file: one read-only memory map, checked before anyone sees it."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ProgramError
from edge_llm.program.check import check_documents, check_plan
from edge_llm.program.container import (
    DIGESTS_KEY,
    LENGTH_BYTES,
    PREFIX,
    Header,
    TensorSpec,
    decode_header,
    documents_digest,
    header_bytes,
)
from edge_llm.program.documents import Documents
from edge_llm.program.plan import Plan, Weight
from edge_llm.program.serialize import documents_from_metadata, plan_from_text
from edge_llm.program.strict import as_object, as_str, fields, parse_json
from edge_llm.program.tensors import (
    FACTORS,
    GOLDEN,
    TOKENIZER,
    TOKENIZER_TABLES,
    Golden,
    check_golden,
    check_tensors,
)
from edge_llm.program.version import check_version, minor_of

PLAN_KEY = PREFIX + "plan"
FACTORS_SINCE = 6  # the minor version
_NUMPY: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"U8": np.dtype("<u1"), "I32": np.dtype("<i4"), "F32": np.dtype("<f4")}
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

    def __init__(self, path: Path, mapping: mmap.mmap, draft: bool = True) -> None:
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
        if (golden := self.golden) is not None:
            check_golden(golden, self.plan.vocab)
        if not draft:
            self.plan = self.plan.without_draft

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, huge_pages: bool = True, draft: bool = True
    ) -> Program:
        """Maps and checks a file. ``huge_pages``: the kernel is asked to hold it in huge pages,
        which it can where it reads the file from now on. Without ``draft`` the plan is without its
        draft method, where it has one.

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
            return cls(path, mapping, draft)
        except ProgramError as exc:
            raise ProgramError(f"{path}: {exc}", hint=exc.hint) from exc

    def release_pages(self) -> None:
        """Gives back the memory of the file's pages; whoever reads them again gets them again."""
        _advise(self._mapping, "MADV_DONTNEED")

    def use_small_pages(self) -> None:
        """Ask the kernel for no huge pages: where memory does not hold the file, every page that is
        missed would bring two megabytes along, of which little is wanted."""
        _advise(self._mapping, "MADV_NOHUGEPAGE")

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
    def digest(self) -> str:
        """SHA-256 (hex) over the digests of everything in the file."""
        return hashlib.sha256(self._header.metadata[DIGESTS_KEY].encode()).hexdigest()

    @property
    def tells_factors(self) -> bool:
        """True if the file has what its matrices were multiplied with before they were rounded,
        where they were; files before 2.6 do not tell."""
        return minor_of(self._header.metadata) >= FACTORS_SINCE

    @property
    def tokenizer_json(self) -> bytes:
        """The bytes of a Hugging Face ``tokenizer.json``.

        Raises:
            ProgramError: they are damaged (said by `open` where no tables stand for them).
        """
        self._verify([TOKENIZER])
        return self._bytes(TOKENIZER).tobytes()

    @property
    def tokenizer_digest(self) -> str:
        """SHA-256 (hex) of the ``tokenizer.json``."""
        return self._digests[TOKENIZER]

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
        held = (self.tensor(name) if name in self.tensors else None for name in GOLDEN)
        return Golden(*held)  # type: ignore[arg-type]  # the last alone may be None: check_tensors

    def tensor(self, name: str) -> NDArray[Any]:
        """A read-only view of a tensor in its own dtype and shape.

        Raises:
            ProgramError: there is no such tensor.
        """
        if name not in self.tensors:
            raise ProgramError(f"{self.path}: no tensor {name!r}")
        spec = self.tensors[name]
        return self._bytes(name).view(_NUMPY[spec.dtype]).reshape(spec.shape)

    def factors(self, name: str) -> NDArray[np.float32] | None:
        """Return a vector of `factor_name`; None where the file has none, as all are one.

        Raises:
            ProgramError: it is damaged.
        """
        if name not in self.tensors:
            return None
        self._verify([name])
        return self.tensor(name).view("<f2").astype(np.float32)

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
        """Return what the run time needs tables instead of, and what adapters alone need."""
        factors = {name for name in self.tensors if name.startswith(FACTORS)}
        return factors | ({TOKENIZER} if self.tokenizer_tables else set())

    def _bytes(self, name: str) -> NDArray[np.uint8]:
        entry = self._header.entries[name]
        begin = self._header.data_begin + entry.begin
        return np.frombuffer(self._mapping, np.uint8, entry.spec.nbytes, begin)

    def _verify(self, names: Iterable[str]) -> None:
        for name in names:
            if hashlib.sha256(self._bytes(name).data).hexdigest() != self._digests[name]:
                raise ProgramError(f"tensor {name!r} is damaged (its digest differs)")


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
