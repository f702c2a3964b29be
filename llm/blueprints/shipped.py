"""The blueprints that ship with the package: a JSON file of each family in ``configs/plans``.

``make plans`` writes them. Each names the sources that it was drawn from by a digest, so that a
family whose PyTorch module was edited since is traced again, never exported from an old drawing.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
import re
from collections.abc import Mapping
from importlib.resources.abc import Traversable

from edge_llm.llm.blueprints.blueprint import Blueprint
from edge_llm.llm.blueprints.quantities import structure
from edge_llm.llm.decoder import DecoderConfig

_SHARED = ("layers", "ops")
_TAKEN = re.compile(rb"^from edge_llm\.llm\.models\.(\w+) import", re.MULTILINE)


def blueprint_of(config: DecoderConfig) -> Blueprint | None:
    """Return the blueprint that the plan of ``config`` follows; None where none was drawn, or the
    family's module is no longer the one that it was drawn from."""
    found = _read(config.model_type).get(structure(config))
    return found if found is not None and found.fits(config) else None


def is_stale(family: str) -> bool:
    """Tell whether the family's module was edited after its blueprints were drawn."""
    file = file_of(family)
    if not file.is_file():
        return False
    return bool(json.loads(file.read_text(encoding="utf-8"))["sources"] != digest(family))


def digest(family: str) -> str:
    """Return the SHA-256, in hex, of the sources that a family's plans follow from: its module,
    what all share, and the modules whose parts these take."""
    folder = importlib.resources.files("edge_llm") / "llm" / "models"
    sources: dict[str, bytes] = {}
    wanted = [family, *_SHARED]
    while wanted:
        name = wanted.pop(0)
        if name not in sources:
            sources[name] = (folder / f"{name}.py").read_bytes()
            wanted += sorted({taken.decode() for taken in _TAKEN.findall(sources[name])})
    return hashlib.sha256(b"\0".join(sources.values())).hexdigest()


def to_text(family: str, blueprints: Mapping[str, Blueprint]) -> str:
    """Return the file of a family: a line for each instruction, so that changes can be read."""
    lines = ["{", f'"sources": {json.dumps(digest(family))}']
    for name, blueprint in blueprints.items():
        lines[-1] += ","
        lines += [f"{json.dumps(name)}: {{", f'"tied": {json.dumps(dict(blueprint.tied))}']
        for section, steps in blueprint.steps.items():
            lines[-1] += ","
            lines.append(f"{json.dumps(section)}: [")
            lines += [json.dumps(step) + "," for step in steps[:-1]]
            lines += [json.dumps(steps[-1]) + "]"]
        lines.append("}")
    return "\n".join([*lines, "}", ""])


def file_of(family: str) -> Traversable:
    """Return the place of a family's file; it may not exist."""
    return importlib.resources.files("edge_llm") / "configs" / "plans" / f"{family}.json"


@functools.cache
def _read(family: str) -> Mapping[str, Blueprint]:
    file = file_of(family)
    if not file.is_file():
        return {}
    document = json.loads(file.read_text(encoding="utf-8"))
    if document.pop("sources") != digest(family):
        return {}
    return {
        name: Blueprint(
            {section: steps for section, steps in drawn.items() if section != "tied"}, drawn["tied"]
        )
        for name, drawn in document.items()
    }
