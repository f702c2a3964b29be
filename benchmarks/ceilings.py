"""This machine's ceilings: read bandwidth (GB/s) and exact int8 arithmetic of AVX2 (GOP/s, a
multiplication and an addition count two).

    python benchmarks/ceilings.py [threads ...]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def ceilings(threads: int) -> dict[str, float]:
    """Compiles and runs ceilings.cpp: {threads, read_gb_per_second, int8_gop_per_second}."""
    source = Path(__file__).with_suffix(".cpp")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "ceilings"
        subprocess.run(
            ["c++", "-O3", "-std=c++17", "-mavx2", "-pthread", str(source), "-o", str(program)],
            check=True,
        )
        done = subprocess.run(
            [str(program), str(threads)], check=True, capture_output=True, text=True
        )
    result: dict[str, float] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    for count in [int(argument) for argument in sys.argv[1:]] or [1, 2]:
        print(json.dumps(ceilings(count)))
