"""Where a node of the traced graph comes from: module path and line of the model definition."""

from __future__ import annotations

import re
from pathlib import Path

from torch.fx import Node

_FRAME = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+)')
_LIBRARIES = ("torch", "torchao")


def model_source(node: Node) -> str:
    """Return as much of ``model.layers.0.mlp (llm/models/layers.py:131)`` as the trace recorded. Of
    a file's path only our own folders, or the last one, are given, so that nothing of the
    exporting machine ends up in a program."""
    modules = list(node.meta.get("nn_module_stack", {}).values())
    path = modules[-1][0] if modules else ""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    for file, line in reversed(frames):
        location = Path(file)
        if not any(f"-packages/{library}/" in location.as_posix() for library in _LIBRARIES):
            place = f"{_shown(location)}:{line}"
            return f"{path} ({place})" if path else place
    return str(path)


def _shown(location: Path) -> str:
    parts = location.parts
    begin = len(parts) - 1 - parts[::-1].index("llm") if "llm" in parts else -2
    return "/".join(parts[begin:])
