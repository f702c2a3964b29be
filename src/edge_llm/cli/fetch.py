"""Fetching a model that was asked for by name, after saying what, from where and how large."""

from __future__ import annotations

from pathlib import Path

from edge_llm.cli.console import Progress, human_bytes, say


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
    if isinstance(located, catalogue.HubSource):
        say(f"fetching {located} from {located.origin}")
        return catalogue.pull(str(located), progress=progress)
    say(
        f"fetching {located.name}: {human_bytes(located.download_bytes)} from {located.origin}, "
        f"{located.licence} licence ({located.licence_url})"
    )
    return catalogue.pull(located.name, progress=progress)
