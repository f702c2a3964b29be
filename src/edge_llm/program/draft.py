"""Header and layout of a program file before there is one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

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
)
from edge_llm.program.documents import Documents
from edge_llm.program.file import PLAN_KEY
from edge_llm.program.plan import Plan
from edge_llm.program.serialize import (
    documents_from_metadata,
    documents_to_metadata,
    plan_from_text,
    plan_to_text,
)
from edge_llm.program.strict import dump_json
from edge_llm.program.tensors import check_tensors
from edge_llm.program.version import FORMAT, FORMAT_KEY

# Room that the header keeps for documents which grow while the tensors are written (the report).
RESERVE = 128 * 1024
RESERVE_PER_TENSOR = 1024


class Draft:
    """A file called ``name`` with these tensors in this order.

    Raises:
        ExportError: plan and tensors do not make up a program.
    """

    def __init__(self, name: str, plan: Plan, tensors: Sequence[TensorSpec]) -> None:
        self._name = name
        self._plan = plan
        self._plan_text = plan_to_text(plan)
        self._count = len(tensors)
        try:
            check_plan(plan_from_text(self._plan_text))  # as a reader will
            check_tensors(plan, {spec.name: spec for spec in tensors})
            self.entries = lay_out(tensors)
        except (ProgramError, ValueError) as exc:
            raise ExportError(f"{name} would not be a valid program: {exc}") from exc

    def header(self, documents: Documents, digests: Mapping[str, str]) -> bytes:
        """The header's text, without padding. ``digests`` are those of the tensors, by name.

        Raises:
            ExportError: the documents are not valid.
        """
        try:
            encoded = documents_to_metadata(documents)
            check_documents(documents_from_metadata(encoded), self._plan)  # as a reader will
        except ProgramError as exc:
            raise ExportError(f"{self._name} would not be a valid program: {exc}") from exc
        except (TypeError, ValueError) as exc:
            raise ExportError(f"the documents are not plain, finite JSON: {exc}") from exc
        metadata = {FORMAT_KEY: FORMAT, PLAN_KEY: self._plan_text, **encoded}
        metadata[DIGESTS_KEY] = dump_json(
            {"documents": documents_digest(metadata), "tensors": dict(digests)}
        )
        return encode_header(self.entries, metadata)

    def data_begin(self, documents: Documents, digests: Mapping[str, str]) -> int:
        """Return where the tensors begin: after this header, and room for it to grow.

        Raises:
            ExportError: the documents are not valid, or too large.
        """
        header = len(self.header(documents, digests)) + RESERVE + RESERVE_PER_TENSOR * self._count
        begin = -(-(LENGTH_BYTES + header) // ALIGNMENT) * ALIGNMENT
        if begin > MAX_HEADER:
            raise ExportError(f"the header needs {header} bytes, at most {MAX_HEADER} are allowed")
        return begin

    def file_bytes(self, data_begin: int) -> int:
        """Size of a file whose tensors begin at ``data_begin``."""
        return data_begin + self.entries[-1].end


def program_bytes(plan: Plan, documents: Documents, tensors: Sequence[TensorSpec]) -> int:
    """Size of the file that `ProgramWriter` would make of these, in bytes.

    Raises:
        ExportError: they do not make up a program.
    """
    draft = Draft(documents.model.name, plan, tensors)
    digests = {spec.name: hashlib.sha256().hexdigest() for spec in tensors}
    return draft.file_bytes(draft.data_begin(documents, digests))
