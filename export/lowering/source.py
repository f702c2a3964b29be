"""Where a node of the traced graph comes from: module path and line of the model definition."""

from __future__ import annotations

import re
from pathlib import Path

from torch.fx import Node

_FRAME = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+)')
_LIBRARIES = ("torch", "torchao")


def model_source(node: Node) -> str:
    """``model.layers.0.mlp (llm/layers.py:131)``, as much of it as the trace recorded. Files are
    given by their last folder, so that nothing of the exporting machine ends up in a program."""
    modules = list(node.meta.get("nn_module_stack", {}).values())
    path = modules[-1][0] if modules else ""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    for file, line in reversed(frames):
        location = Path(file)
        if not any(f"-packages/{library}/" in location.as_posix() for library in _LIBRARIES):
            place = f"{location.parent.name}/{location.name}:{line}"
            return f"{path} ({place})" if path else place
    return str(path)
