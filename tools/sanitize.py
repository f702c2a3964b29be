"""Runs the native and engine tests on a core that checks itself, and fails on any report.

    python tools/sanitize.py [address] [thread] [-- PYTEST ARGUMENTS]

``address`` is AddressSanitizer with UndefinedBehaviorSanitizer, and LeakSanitizer for what the core
allocates; ``thread`` is ThreadSanitizer. Builds are kept in build/sanitize-NAME. The interpreter is
not instrumented: the sanitizer's run time is loaded before it, and of other people's libraries only
the synchronization is seen.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
LIBRARY = "libedge_llm.so"
TESTS = ("tests/runner",)
_FAULT = re.compile(
    r"==ERROR: |WARNING: ThreadSanitizer|FATAL: |CHECK failed|: runtime error: ",
)


@dataclass(frozen=True, slots=True)
class Sanitizer:
    """A way to check the core.

    Attributes:
        flags: what ``-fsanitize`` is given.
        runtime: the library to load before the interpreter.
        options: environment variables for it, beside where reports go.
    """

    flags: str
    runtime: str
    options: Mapping[str, str]


SANITIZERS = {
    "address": Sanitizer(
        "address,undefined",
        "libasan.so",
        {
            # Leaks are found when the process ends, and change its exit status for those of others
            # (the interpreter keeps much until then): `reports` takes those of the core.
            "ASAN_OPTIONS": "detect_leaks=1:halt_on_error=1:allocator_may_return_null=1",
            "LSAN_OPTIONS": "exitcode=0:max_leaks=1000",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=0",
            "PYTHONMALLOC": "malloc",  # else buffers of Python lie inside its own arenas
        },
    ),
    "thread": Sanitizer(
        "thread",
        "libtsan.so",
        {
            # Libraries without instrumentation synchronize in ways that cannot be seen: what they
            # do to memory is not judged (numpy, PyTorch, the interpreter).
            "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=0:exitcode=0"
            ":die_after_fork=0:history_size=4",
        },
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SANITIZERS)}")
    own, _, tests = " ".join(sys.argv[1:]).partition("--")
    options = parser.parse_args(own.split())
    if unknown := set(options.names) - set(SANITIZERS):
        parser.error(f"no sanitizer {', '.join(sorted(unknown))}; known: {', '.join(SANITIZERS)}")
    return max(check(name, tests.split()) for name in options.names or SANITIZERS)


def check(name: str, tests: list[str]) -> int:
    """Build and run the tests under one sanitizer; return 0 if they pass without a report."""
    sanitizer = SANITIZERS[name]
    folder = BUILD / f"sanitize-{name}"
    build(sanitizer, folder)
    for old in folder.glob("report.*"):
        old.unlink()
    command = [
        # Addresses as the run time expects them, whatever the kernel does by default.
        *(["setarch", "-R"] if shutil.which("setarch") else []),
        # What gcc's UndefinedBehaviorSanitizer says goes to stderr, past pytest.
        *(sys.executable, "-m", "pytest", "-q", "--capture=sys", "-m", "not slow"),
        *(tests or TESTS),
    ]
    with (folder / "report.stderr").open("wb") as errors:
        completed = subprocess.run(
            command, cwd=ROOT, env=environment(sanitizer, folder), stderr=errors, check=False
        )
    found = reports(folder)
    print("\n\n".join(found))
    print(f"{name}: {len(found)} reports, pytest ended with status {completed.returncode}")
    return 1 if found or completed.returncode else 0


def build(sanitizer: Sanitizer, folder: Path) -> None:
    """Build the core with the sanitizer into ``folder``."""
    configure = ["cmake", "-S", str(ROOT / "runner" / "native"), "-B", str(folder)]
    configure += [f"-DEDGE_SANITIZE={sanitizer.flags}", "-DCMAKE_BUILD_TYPE=None"]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", str(folder), "--parallel", str(os.cpu_count())], check=True)


def environment(sanitizer: Sanitizer, folder: Path) -> dict[str, str]:
    """Return the environment in which the interpreter loads the checked core."""
    compiler = os.environ.get("CXX", "c++")
    preloaded = [
        subprocess.run(
            [compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        # The C++ library too, so that the run time sees how exceptions are thrown.
        for library in (sanitizer.runtime, "libstdc++.so")
    ]
    log = f":log_path={folder / 'report'}"
    options = {
        key: value + log if key.endswith("_OPTIONS") else value
        for key, value in sanitizer.options.items()
    }
    return {
        **os.environ,
        **options,
        "LD_PRELOAD": ":".join(preloaded),
        "EDGE_LLM_NATIVE": str(folder / LIBRARY),
    }


def reports(folder: Path) -> list[str]:
    """Return what the run time found, but for leaks whose stack has nothing of the core."""
    found = []
    for path in sorted(folder.glob("report.*")):
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [part for part in _split(text) if _is_fault(part)]
    return found


def _split(text: str) -> list[str]:
    """Split a file into its reports; every leak is one."""
    parts = re.split(r"\n(?=(?:Direct|Indirect) leak of |===|\S*: runtime error)", text)
    return [part.strip() for part in parts if part.strip()]


def _is_fault(report: str) -> bool:
    """Tell a fault from remarks of the run time, and from leaks of the interpreter."""
    if re.match(r"(?:Direct|Indirect) leak of ", report):
        return LIBRARY in report
    leaks = "LeakSanitizer: detected memory leaks" in report  # the head of the list of them
    return not leaks and _FAULT.search(report) is not None


if __name__ == "__main__":
    sys.exit(main())
