"""Draws the plans that ship with the package, configs/plans, from the PyTorch modules.

    python tools/plans.py [FAMILY ...]

Families whose sources have not changed are passed over, unless they are named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge_llm.export.lowering.blueprints import blueprints_of
from edge_llm.llm.blueprints.shipped import digest, to_text
from edge_llm.llm.registry import FAMILIES

FOLDER = Path(__file__).parents[1] / "configs" / "plans"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    named = sys.argv[1:]
    for family in named or FAMILIES:
        file = FOLDER / f"{family}.json"
        if named or not is_current(file, family):
            file.write_text(to_text(family, blueprints_of(family)), encoding="utf-8")
            print(file.name)


def is_current(file: Path, family: str) -> bool:
    """Tell whether a family's plans were drawn from its sources as they are now."""
    if not file.is_file():
        return False
    drawn: str = json.loads(file.read_text(encoding="utf-8"))["sources"]
    return drawn == digest(family)


if __name__ == "__main__":
    main()
