"""The tests that the emulated processors run are read where there is no PyTorch, as there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COLLECT = """
import sys
sys.modules["torch"] = None
import pytest
arguments = ["--collect-only", "-qq", "-p", "no:cacheprovider"]
sys.exit(pytest.main([*arguments, "--confcutdir=tests/runner/native", "tests/runner/native"]))
"""


def test_the_native_tests_need_no_pytorch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
