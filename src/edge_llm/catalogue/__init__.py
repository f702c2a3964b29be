"""Names of models -> where they come from and where they are kept; and the store of programs.

Everything lives under `home`: ``models/`` for what was fetched, ``programs/`` for exported files.
"""

from edge_llm.catalogue.entries import Entry, Package, find, list_models
from edge_llm.catalogue.models import is_pulled, locate, pull, resolve
from edge_llm.catalogue.store import (
    StoredProgram,
    find_program,
    home,
    list_programs,
    models_dir,
    newest_program,
    programs_dir,
    remove,
)

__all__ = [
    "Entry",
    "Package",
    "StoredProgram",
    "find",
    "find_program",
    "home",
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
