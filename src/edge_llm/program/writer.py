"""Writing a program file: tensor by tensor, in any order, and never half a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.program.container import LENGTH_BYTES, TensorSpec, pad_header
from edge_llm.program.documents import Documents
from edge_llm.program.draft import Draft
from edge_llm.program.partial import PartialFile
from edge_llm.program.plan import Plan
from edge_llm.program.tensors import GOLDEN


class ProgramWriter:
    """Writes one program file.

    The bytes go to a hidden file in the same folder, which takes the place of ``path`` in one step
    at `finish`; leaving the ``with`` block earlier removes it. The order of ``tensors`` is their
    order in the file. Two writers of one path do not disturb each other: the later one wins.

    Raises:
        ExportError: the plan and the tensors do not make up a program, ``path`` cannot be written,
            or the disk fails or is full (said at once: the space is taken when the writer is made).
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
        self._draft = Draft(self._path.name, plan, tensors)
        self._by_name = {entry.spec.name: entry for entry in self._draft.entries}
        # A tensor that is never written is zeros in the file; only golden ones may be, and only
        # until `finish`, since the sealed file itself computes them.
        self._digests = {
            spec.name: hashlib.sha256(
                bytes(spec.nbytes) if spec.name in GOLDEN else b""
            ).hexdigest()
            for spec in tensors
        }
        self._missing = {spec.name for spec in tensors}
        self._data_begin = self._draft.data_begin(documents, self._digests)
        self._file = PartialFile(self._path, self._draft.file_bytes(self._data_begin))
        self.temporary_path = self._file.path

    def __enter__(self) -> ProgramWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.abandon()

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
        self._file.put(self._data_begin + entry.begin, payload.data)
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
        self._file.publish()
        return self._path

    def _seal(self, documents: Documents, missing: set[str]) -> None:
        if missing:
            raise ExportError(f"tensors were not written: {', '.join(sorted(missing))}")
        text = self._draft.header(documents, self._digests)
        if len(text) > self._data_begin - LENGTH_BYTES:
            raise ExportError("the documents grew beyond the space reserved in the header")
        self._file.put(0, pad_header(text, self._data_begin))
