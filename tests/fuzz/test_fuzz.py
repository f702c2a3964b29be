"""Every reader of files from strangers, fed with damaged ones: only typed errors, never a crash, a
hang, or more memory than the target's bound (targets.py) beyond what the imports take.

A short run by default; 10^5 inputs for each reader behind the slow mark:

    pytest -m slow tests/fuzz -s
    FUZZ_INPUTS=1000000 FUZZ_JOBS=8 pytest -m slow tests/fuzz -s -k template
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TARGETS = (
    *("program", "core", "gguf", "safetensors", "config", "quantized", "meta", "adapter"),
    *("tokenizer", "sentencepiece", "tiktoken", "template", "request", "recipe"),
)
SHORT = 100
LONG = int(os.environ.get("FUZZ_INPUTS", 100_000))
JOBS = int(os.environ.get("FUZZ_JOBS", 2))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds memory as Linux does")
Reports = dict[str, Any]


def run_worker(*targets: str, seeds: Path, scratch: Path, first: int, count: int) -> Reports:
    """Return what the worker reports of each target."""
    command = [sys.executable, str(HERE / "worker.py"), *targets, f"--seeds={seeds}"]
    command += [f"--scratch={scratch}", f"--first={first}", f"--count={count}", f"--jobs={JOBS}"]
    reports: Reports = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    )
    return reports


@pytest.fixture(scope="module")
def short_run(seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    scratch = tmp_path_factory.mktemp("fuzz")
    return run_worker(*TARGETS, seeds=seeds, scratch=scratch, first=0, count=SHORT)


@pytest.mark.parametrize("target", TARGETS)
def test_short(target: str, short_run: Reports) -> None:
    report = short_run[target]
    assert report["failures"] == []
    assert sum(report["outcomes"].values()) == SHORT
    # Damage that is all stopped at the door tests nothing.
    assert report["outcomes"]["accepted"] >= SHORT // 20


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_long(target: str, seeds: Path, scratch_in_memory: Path) -> None:
    report = run_worker(target, seeds=seeds, scratch=scratch_in_memory, first=SHORT, count=LONG)[
        target
    ]
    print(f"\n{target}: {json.dumps(report)}")
    assert report["failures"] == []
    assert sum(report["outcomes"].values()) == LONG


def test_targets_are_all_run() -> None:
    """The list here, which pytest needs before anything is imported, against the worker's own."""
    listed = subprocess.run(
        [sys.executable, str(HERE / "worker.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = listed.stdout[listed.stdout.index("{") + 1 : listed.stdout.index("}")]
    assert tuple("".join(names.split()).split(",")) == TARGETS
