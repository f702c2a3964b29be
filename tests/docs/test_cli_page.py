"""docs/cli.md is what --help says, and the table of docs/models.md what the catalogue says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("page", "script", "options"),
    [
        ("cli.md", "make_cli.py", []),
        ("edge-llm.1", "make_cli.py", ["--man"]),
        ("models.md", "make_models.py", []),
    ],
)
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse words its help anew in 3.12")
def test_the_page_is_current(page: str, script: str, options: list[str]) -> None:
    made = subprocess.run(
        [sys.executable, f"docs/{script}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ROOT / "docs" / page).read_text() == made.stdout, "run `make docs`"


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
def test_the_man_page_has_no_faults() -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "docs/edge-llm.1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "run LLMs on this machine" in done.stdout
