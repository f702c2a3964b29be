"""Changing plans, as hostile files do."""

from __future__ import annotations

import dataclasses
from typing import Any

from edge_llm.program.plan import Plan


def replace(thing: Any, **changes: Any) -> Any:
    """Replace fields as `dataclasses.replace`, those of a plan's language model by their names."""
    if isinstance(thing, Plan):
        if "output" in changes:
            changes["outputs"] = (changes.pop("output"),)
        names = ("signature", "inputs", "values", "instructions", "outputs")
        own = {name: changes.pop(name) for name in names if name in changes}
        if own:
            method = dataclasses.replace(thing.language_model, **own)
            changes["methods"] = {method.signature: method}
    return dataclasses.replace(thing, **changes)
