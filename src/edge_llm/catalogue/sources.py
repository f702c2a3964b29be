"""``hf:org/name[/file.gguf][@revision]``: a model on Hugging Face, named in full."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from edge_llm.catalogue.entries import HUB_PREFIX, Entry
from edge_llm.catalogue.store import SUFFIX
from edge_llm.errors import SourceError

_FORM = f"{HUB_PREFIX}org/name[/file.gguf][@revision]"
_PART = r"[A-Za-z0-9_][\w.-]{0,95}"
_REFERENCE = re.compile(
    rf"{HUB_PREFIX}(?P<repository>{_PART}/{_PART})(?:/(?P<file>[^@\x00-\x1f\\]+))?"
    r"(?:@(?P<revision>[A-Za-z0-9_][\w./-]{0,254}))?",
    flags=re.ASCII,
)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on Hugging Face, or one GGUF file in it.

    Attributes:
        repository: ``org/name``.
        file: path of a GGUF file in it, or of a program; None for a folder with config, tokenizer
            and weights.
        revision: branch, tag or commit; None for the main branch.
        entry: what the catalogue knows about the repository, if anything.
    """

    repository: str
    file: str | None = None
    revision: str | None = None
    entry: Entry | None = None

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB_PREFIX}{self.repository}{file}{revision}"

    @property
    def name(self) -> str:
        """The name of a program that is made of it."""
        return PurePosixPath(self.file).stem if self.file else self.repository.partition("/")[2]

    @property
    def origin(self) -> str:
        """The place that ``pull`` takes it from, for people."""
        return f"Hugging Face ({self.repository})"

    @property
    def sampling(self) -> Mapping[str, Any]:
        """The authors' recommendation as the catalogue has it (see `Entry.sampling`)."""
        return self.entry.sampling if self.entry else {}


def is_hub_reference(text: str) -> bool:
    """Tell whether the text is meant as ``hf:…``."""
    return text.startswith(HUB_PREFIX)


def parse_hub_reference(text: str) -> HubSource:
    """Return the source that the text names.

    Raises:
        SourceError: not of the form, or a file that is neither GGUF nor a program.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or ".." in text or "//" in text:
        raise SourceError(f"{text[:200]!r} names no model: expected {_FORM}")
    file = match["file"]
    if file is not None and not file.endswith((".gguf", SUFFIX)):
        raise SourceError(
            f"{file!r} is not a GGUF file: expected {_FORM}",
            hint=f"{HUB_PREFIX}{match['repository']} means the whole repository.",
        )
    return HubSource(match["repository"], file, match["revision"])


def names_program(text: str) -> bool:
    """Tell whether ``text`` is the address of a program: ``https://HOST/FILE.edge`` with or without
    ``#sha256=…``, or ``hf:ORG/NAME/FILE.edge[@REVISION]``."""
    if is_hub_reference(text):
        return text.partition("@")[0].endswith(SUFFIX)
    try:
        return text.startswith(("https://", "http://")) and urlsplit(text).path.endswith(SUFFIX)
    except ValueError:
        return False
