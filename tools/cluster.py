"""Runs the tests behind Ray Serve: ``make test-cluster``.

    python tools/cluster.py [OPTIONS OF PYTEST]

Two nodes of a cluster are started on this machine, in an environment under build/cluster with Ray
and this checkout in it (0.7 GB). With ``--python`` it only makes the environment and prints its
Python.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "cluster"
PINNED = ("ray[serve]==2.60.0", "pytest==9.2.0", "httpx==0.28.1")


def main() -> None:
    python = environment()
    if sys.argv[1:] == ["--python"]:
        print(python)
        return
    tests = ROOT / "tests" / "cluster"
    options = ["-q", "-c", str(tests / "pytest.ini"), "--rootdir", str(tests)]
    done = subprocess.run(
        [str(python), "-m", "pytest", *options, str(tests), *sys.argv[1:]],
        cwd=WORK,
        env={**os.environ, "EDGE_LLM_PROGRAM": str(program()), "RAY_USAGE_STATS_ENABLED": "0"},
        check=False,
    )
    sys.exit(done.returncode)


def environment() -> Path:
    """Return the Python of the environment, which has this checkout as it is now in it."""
    python = WORK / "env" / "bin" / "python"
    stamp = WORK / "pins"
    pins = hashlib.sha256("\n".join(PINNED).encode()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == pins):
        run(sys.executable, "-m", "venv", "--clear", str(python.parents[1]))
        run(str(python), "-m", "pip", "install", "--quiet", *PINNED)
        stamp.write_text(pins)
    run(str(python), "-m", "pip", "install", "--quiet", str(ROOT))
    return python


def program() -> Path:
    """Return a program of SmolLM2-135M-Instruct; it is exported once."""
    path = WORK / "smollm2.edge"
    if not path.is_file():
        run(sys.executable, str(ROOT / "tests" / "clients" / "programs.py"), "real", str(path))
    return path


def run(*command: str) -> None:
    """Run a command; what it prints goes to the standard error."""
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
