"""Names of models -> where they come from and where they are kept; and the store of programs.

Everything lives under `home`: ``models/`` for what was fetched, ``programs/`` for exported files.
Names are resolved on first use: whoever runs a program file needs little of this.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_llm.catalogue.data import fetch_data
    from edge_llm.catalogue.entries import Entry, Package, find, list_models
    from edge_llm.catalogue.evaluations import evaluations_of, remember
    from edge_llm.catalogue.hub import commit_of
    from edge_llm.catalogue.models import identify, is_pulled, locate, pull, remove, resolve
    from edge_llm.catalogue.naming import find_program, means_model, program_unless_checkpoint
    from edge_llm.catalogue.ready import pull_program
    from edge_llm.catalogue.settings import read_settings, setting
    from edge_llm.catalogue.sources import HubSource, names_program
    from edge_llm.catalogue.store import (
        StoredProgram,
        home,
        list_programs,
        models_dir,
        programs_dir,
    )

_HOMES = {
    "data": ("fetch_data",),
    "entries": ("Entry", "Package", "find", "list_models"),
    "evaluations": ("evaluations_of", "remember"),
    "hub": ("commit_of",),
    "models": ("identify", "is_pulled", "locate", "pull", "remove", "resolve"),
    "naming": ("find_program", "means_model", "program_unless_checkpoint"),
    "ready": ("pull_program",),
    "settings": ("read_settings", "setting"),
    "sources": ("HubSource", "names_program"),
    "store": ("StoredProgram", "home", "list_programs", "models_dir", "programs_dir"),
}

__all__ = [
    "Entry",
    "HubSource",
    "Package",
    "StoredProgram",
    "commit_of",
    "evaluations_of",
    "fetch_data",
    "find",
    "find_program",
    "home",
    "identify",
    "is_pulled",
    "list_models",
    "list_programs",
    "locate",
    "means_model",
    "models_dir",
    "names_program",
    "program_unless_checkpoint",
    "programs_dir",
    "pull",
    "pull_program",
    "read_settings",
    "remember",
    "remove",
    "resolve",
    "setting",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
