"""Programs that a model might write: what they may do, and what ends them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_llm.errors import ConfigError
from edge_llm.runner.evaluation.tasks import sandbox
from edge_llm.runner.evaluation.tasks.confined import allowed_calls
from edge_llm.runner.evaluation.tasks.sandbox import CodeLimits, run_code

SHORT = CodeLimits(seconds=1, wall_seconds=5.0, memory=1 << 28)


def why(source: str, limits: CodeLimits = SHORT) -> str:
    reason = run_code(source, limits)
    assert reason is not None
    return reason


def test_a_program_that_comes_to_its_end() -> None:
    source = """
import collections, functools, hashlib, heapq, itertools, math, random, re, string, typing
assert math.prod(range(1, 6)) == 120 and hashlib.md5(b"x").hexdigest().startswith("9dd4")
print(sorted(collections.Counter("abca").items()), random.random() < 1)
"""
    assert run_code(source) is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("assert 1 == 2, 'not so'", "AssertionError: not so"),
        ("def broken(:", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "ended early, with 0"),
        ("import numpy", "ModuleNotFoundError"),
        ("raise KeyError('\\ud800')", "KeyError"),
    ],
)
def test_one_that_does_not(source: str, reason: str) -> None:
    assert reason in why(source)


@pytest.mark.parametrize("handler", ["", "import signal; signal.signal(24, signal.SIG_IGN)"])
def test_an_infinite_loop_is_ended(handler: str) -> None:
    assert "longer than 1 s" in why(f"{handler}\nwhile True: pass")


def test_one_that_sleeps_is_ended() -> None:
    limits = CodeLimits(wall_seconds=1.0)
    assert "longer than 1 s" in why("import time; time.sleep(60)", limits)


@pytest.mark.parametrize(
    "source", ["x = 'x' * (1 << 32)", "x = []\nwhile True: x += [bytes(1 << 20)]"]
)
def test_memory_is_bounded(source: str) -> None:
    assert "memory" in why(source)


def test_deep_recursion_is_an_error() -> None:
    assert "RecursionError" in why("def f(): f()\nf()")


@pytest.mark.parametrize(
    "source",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import multiprocessing; multiprocessing.Process(target=print).start()",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.kill(os.getppid(), 9)",
        "import threading; threading.Thread(target=print).start()",
        "import socket; socket.socket()",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:1/')",
    ],
)
def test_no_process_no_signal_no_network(source: str) -> None:
    reason = why(source)
    assert "Error" in reason
    assert "not permitted" in reason or "can't start new thread" in reason


def test_no_file_is_changed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    for act in (
        f"open({str(kept)!r}, 'w').write('changed')",
        f"open({str(kept)!r}, 'a').write('changed')",
        f"open({str(tmp_path / 'new')!r}, 'x')",
        f"import os; os.unlink({str(kept)!r})",
        f"import os; os.rename({str(kept)!r}, {str(tmp_path / 'other')!r})",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; os.chmod({str(kept)!r}, 0)",
        f"import os; os.mkdir({str(tmp_path / 'folder')!r})",
        f"import shutil; shutil.rmtree({str(tmp_path)!r})",
        "import os; os.mkfifo('fifo')",
    ):
        assert "PermissionError" in why(act), act
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert kept.read_text() == "as it was"
    assert run_code(f"assert open({str(kept)!r}).read() == 'as it was'") is None


def test_output_goes_nowhere() -> None:
    assert run_code("for _ in range(1000): print('x' * 10000)") is None


def test_a_flood_on_the_reporting_pipe_is_cut() -> None:
    source = """
import os
for number in range(3, 64):
    try:
        while True: os.write(number, b'x' * 4096)
    except OSError: pass
"""
    limits = CodeLimits(wall_seconds=2.0)
    assert why(source, limits)


def test_its_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "key")
    assert (
        run_code("import os; assert 'SECRET' not in os.environ; assert os.listdir() == []") is None
    )


def test_nothing_runs_where_it_cannot_be_confined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "confined.py"
    text = Path(sandbox._SCRIPT).read_text()
    script.write_text(text.replace("platform.machine()", "'pdp11'"))
    monkeypatch.setattr(sandbox, "_SCRIPT", script)
    with pytest.raises(ConfigError, match="no system calls are known of a pdp11"):
        run_code("pass")


def test_a_machine_is_named() -> None:
    assert len(allowed_calls("x86_64")) % 8 == 0
    assert allowed_calls("aarch64") != allowed_calls("x86_64")
    with pytest.raises(OSError, match="riscv64"):
        allowed_calls("riscv64")


def test_no_file_descriptor_is_left() -> None:
    run_code("pass")
    before = set(os.listdir("/proc/self/fd"))
    run_code("pass")
    run_code("raise ValueError")
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_report_that_the_program_has_written_is_read_as_none() -> None:
    nested = "import os, sys; os.write(int(sys.argv[1]), b'[' * 8000 + b'\\n')"
    assert "ended early" in why(f"{nested}; os._exit(0)")
    run_code(nested)  # which may come to its end
