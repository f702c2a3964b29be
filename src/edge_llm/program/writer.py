"""Writing a program file: tensor by tensor, in any order, and never half a file."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ExportError, ProgramError
from edge_llm.program.check import check_documents, check_plan
from edge_llm.program.container import (
    ALIGNMENT,
    DIGESTS_KEY,
    LENGTH_BYTES,
    MAX_HEADER,
    TensorSpec,
    documents_digest,
    encode_header,
    lay_out,
    pad_header,
)
from edge_llm.program.documents import Documents
from edge_llm.program.file import FORMAT, FORMAT_KEY, GOLDEN, PLAN_KEY, check_tensors
from edge_llm.program.plan import Plan
from edge_llm.program.serialize import (
    documents_from_metadata,
    documents_to_metadata,
    plan_from_text,
    plan_to_text,
)
from edge_llm.program.strict import dump_json

T = TypeVar("T")

# Room that the header keeps for documents which grow while the tensors are written (the report).
RESERVE = 128 * 1024
RESERVE_PER_TENSOR = 1024


class ProgramWriter:
    """Writes one program file.

    The bytes go to a hidden file in the same folder, which takes the place of ``path`` in one step
    at `finish`; leaving the ``with`` block earlier removes it. The order of ``tensors`` is their
    order in the file.

    Raises:
        ExportError: the plan and the tensors do not make up a program, or the disk fails or is
            full (said at once: the space is taken when the writer is made).
    """

    temporary_path: Path

    def __init__(
        self,
        path: str | os.PathLike[str],
        plan: Plan,
        documents: Documents,
        tensors: Sequence[TensorSpec],
    ) -> None:
        self._path = Path(path)
        if not self._path.name:
            raise ExportError(f"{str(path)!r} is not the name of a file")
        self._plan_text = plan_to_text(plan)
        self._plan = plan
        try:
            check_plan(plan_from_text(self._plan_text))  # as a reader will
            check_tensors(plan, {spec.name: spec for spec in tensors})
            self._entries = lay_out(tensors)
        except (ProgramError, ValueError) as exc:
            raise ExportError(f"{self._path.name} would not be a valid program: {exc}") from exc
        self._by_name = {entry.spec.name: entry for entry in self._entries}
        # A tensor that is never written is zeros in the file; only golden ones may be, and only
        # until `finish`, since the sealed file itself computes them.
        self._digests = {
            spec.name: hashlib.sha256(
                bytes(spec.nbytes) if spec.name in GOLDEN else b""
            ).hexdigest()
            for spec in tensors
        }
        self._missing = {spec.name for spec in tensors}
        header = len(self._header(documents)) + RESERVE + RESERVE_PER_TENSOR * len(tensors)
        self._data_begin = -(-(LENGTH_BYTES + header) // ALIGNMENT) * ALIGNMENT
        if self._data_begin > MAX_HEADER:
            raise ExportError(f"the header needs {header} bytes, at most {MAX_HEADER} are allowed")
        self.temporary_path = self._path.with_name(
            f".{self._path.name}.{secrets.token_hex(4)}.partial"
        )
        self._file = self._disk(lambda: self.temporary_path.open("xb"))
        try:
            self._disk(self._reserve)
        except BaseException:
            self._abandon()
            raise

    def __enter__(self) -> ProgramWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._abandon()

    def write(self, name: str, data: NDArray[Any] | bytes) -> None:
        """Stores a tensor: an array of its dtype and shape, or its bytes (little-endian).

        Raises:
            ExportError: no such tensor, it was written before, another size, or a disk error.
        """
        entry = self._by_name.get(name)
        if name not in self._missing or entry is None:
            raise ExportError(f"tensor {name!r} is not awaited")
        array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        payload = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if payload.nbytes != entry.spec.nbytes:
            raise ExportError(
                f"tensor {name!r}: {payload.nbytes} bytes, expected {entry.spec.nbytes}"
            )
        self._disk(lambda: self._put(self._data_begin + entry.begin, payload.data))
        self._digests[name] = hashlib.sha256(payload.data).hexdigest()
        self._missing.discard(name)

    def seal(self, documents: Documents) -> None:
        """Writes a valid header, so that ``temporary_path`` opens as a program. All tensors must
        have been written, but those of the golden record.

        Raises:
            ExportError: tensors are missing, the documents do not fit, or a disk error.
        """
        self._seal(documents, self._missing - GOLDEN.keys())

    def finish(self, documents: Documents) -> Path:
        """Seals the file, forces it to disk and puts it in place; returns its path.

        Raises:
            ExportError: as `seal`, and for any tensor that is missing.
        """
        self._seal(documents, self._missing)
        self._disk(self._publish)
        return self._path

    def _seal(self, documents: Documents, missing: set[str]) -> None:
        if missing:
            raise ExportError(f"tensors were not written: {', '.join(sorted(missing))}")
        text = self._header(documents)
        if len(text) > self._data_begin - LENGTH_BYTES:
            raise ExportError("the documents grew beyond the space reserved in the header")
        self._disk(lambda: self._put(0, pad_header(text, self._data_begin)))

    def _header(self, documents: Documents) -> bytes:
        try:
            encoded = documents_to_metadata(documents)
            check_documents(documents_from_metadata(encoded), self._plan)  # as a reader will
        except ProgramError as exc:
            raise ExportError(f"{self._path.name} would not be a valid program: {exc}") from exc
        except (TypeError, ValueError) as exc:
            raise ExportError(f"the documents are not plain, finite JSON: {exc}") from exc
        metadata = {FORMAT_KEY: FORMAT, PLAN_KEY: self._plan_text, **encoded}
        digests = {"documents": documents_digest(metadata), "tensors": self._digests}
        metadata[DIGESTS_KEY] = dump_json(digests)
        return encode_header(self._entries, metadata)

    def _reserve(self) -> None:
        size = self._data_begin + self._entries[-1].end
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file.fileno(), 0, size)
        else:
            self._file.truncate(size)

    def _put(self, offset: int, data: memoryview | bytes) -> None:
        self._file.seek(offset)
        self._file.write(data)
        self._file.flush()

    def _publish(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self.temporary_path, self._path)
        if os.name == "posix":  # the rename is durable once its folder is
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _abandon(self) -> None:
        # A failed flush of a full disk raises again at close; the file goes away in any case.
        try:
            self._file.close()
        except OSError:
            pass
        finally:
            self.temporary_path.unlink(missing_ok=True)

    def _disk(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except OSError as exc:
            raise ExportError(f"cannot write {self._path}: {exc.strerror}") from exc
