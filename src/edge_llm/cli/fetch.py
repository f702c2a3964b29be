"""Fetching a model that was asked for by name, after saying what, from where and how large."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_llm.cli.console import Progress, human_bytes, say

if TYPE_CHECKING:
    from edge_llm.catalogue.models import Model


def fetch(source: str, progress: Progress) -> Path:
    """Return the files of a checkpoint: a path, or a name or ``hf:…`` whose model is fetched if it
    is not here yet.

    Raises:
        SourceError: no such path or name, or it cannot be fetched; the hint says what to do.
    """
    from edge_llm import catalogue

    located = catalogue.locate(source)
    if isinstance(located, Path):
        return located
    announce(located)
    return catalogue.pull(source, progress=progress)


def announce(located: Path | Model) -> None:
    """Say what is fetched, from where and how large, unless it is here."""
    from edge_llm import catalogue

    if isinstance(located, catalogue.HubSource):
        say(f"fetching {located} from {located.origin}")
    elif isinstance(located, catalogue.Entry):
        say(
            f"fetching {located.name}: {human_bytes(located.download_bytes)} from "
            f"{located.origin}, {located.licence} licence ({located.licence_url})"
        )


def fetch_program(source: str, *, verify: bool = False) -> Path:
    """Return the ready program of an address (see `names_program`), in the store.

    Raises:
        SourceError: it cannot be fetched, or is no program; the hint says what to do.
    """
    from edge_llm import catalogue

    fetched: list[str] = []
    progress = Progress()

    def report(stage: str, done: int, total: int) -> None:
        if stage == "download" and not fetched:
            fetched.append(stage)
            say(f"fetching {source.partition('#')[0]}: {human_bytes(total)}")
        progress(stage, done, total)

    try:
        path = catalogue.pull_program(source, report, verify=verify, tell=say)
    finally:
        progress.close()
    if not fetched:
        say(f"{path.stem} is already here, and whole")
    return path
