"""Names of models -> where they come from and where they are kept; and the store of programs.

Everything lives under `home`: ``models/`` for what was fetched, ``programs/`` for exported files.
"""

from edge_llm.catalogue.entries import Entry, Package, find, list_models
from edge_llm.catalogue.hub import commit_of
from edge_llm.catalogue.models import identify, is_pulled, locate, pull, remove, resolve
from edge_llm.catalogue.sources import HubSource
from edge_llm.catalogue.store import (
    StoredProgram,
    find_program,
    home,
    list_programs,
    models_dir,
    newest_program,
    programs_dir,
)

__all__ = [
    "Entry",
    "HubSource",
    "Package",
    "StoredProgram",
    "commit_of",
    "find",
    "find_program",
    "home",
    "identify",
    "is_pulled",
    "list_models",
    "list_programs",
    "locate",
    "models_dir",
    "newest_program",
    "programs_dir",
    "pull",
    "remove",
    "resolve",
]
