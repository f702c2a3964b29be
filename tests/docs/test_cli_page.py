"""docs/cli.md is what --help says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse words its help anew in 3.12")
def test_the_page_is_current() -> None:
    made = subprocess.run(
        [sys.executable, "docs/make_cli.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "cli.md").read_text() == made.stdout, "run `make docs`"
