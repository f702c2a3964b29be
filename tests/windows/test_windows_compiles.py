"""The core compiles and links for Windows, warnings being errors. Nothing of it is run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "runner" / "native"
COMPILER, CMAKE = "x86_64-w64-mingw32-g++-posix", "cmake"


@pytest.mark.slow
def test_core_compiles_with_mingw(tmp_path: Path) -> None:
    for tool in (COMPILER, CMAKE):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}")
    toolchain = NATIVE / "cmake" / "x86_64-w64-mingw32.cmake"
    for command in (
        [CMAKE, "-S", str(NATIVE), "-B", str(tmp_path), f"-DCMAKE_TOOLCHAIN_FILE={toolchain}"],
        [CMAKE, "--build", str(tmp_path), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert b"edge_step\0" in (tmp_path / "libedge_llm.dll").read_bytes()
