"""An aarch64 Linux on any other Debian: cross-compiled core, emulated Python.

The core is built with Debian's cross-compiler. Python and the C library are Debian's arm64
packages, unpacked into the test cache without touching the system; other packages are PyPI's
wheels. Programs run under qemu's user-mode emulation. What cannot be had is a skip that names it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "runner" / "native"
DEBIAN = ("python3", "libstdc++6")
# What the run time and its native tests import, in this environment's versions.
WHEELS = ("numpy", "tokenizers", "jinja2", "pytest")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


@dataclass(frozen=True)
class Aarch64:
    """Runs Python on emulated processors, over this checkout and the cross-compiled core."""

    qemu: str
    system: Path  # unpacked Debian packages
    python: Path  # its interpreter
    site: Path  # unpacked wheels
    library: Path

    def run(
        self, *arguments: str, cpu: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """``python ARGUMENTS`` on processor ``cpu`` of qemu's list, in the checkout's root."""
        variables = {
            "EDGE_LLM_NATIVE": str(self.library),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHOME": "/usr",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(self.site)]),
            **(environment or {}),
        }
        kept = {key: os.environ[key] for key in ("HOME", "TMPDIR") if key in os.environ}
        return subprocess.run(
            # -S: the site module would find the packages of the system that emulates.
            [self.qemu, "-cpu", cpu, "-L", str(self.system), str(self.python), "-S", *arguments],
            env={"PATH": os.environ["PATH"], **kept, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> Aarch64:
    """The emulated machine, or a skip."""
    if platform.machine() == "aarch64":
        pytest.skip("this machine is an aarch64 itself: its own test run covers it")
    qemu = _tool("qemu-aarch64-static", "qemu-aarch64")
    library = _cross_compile(tmp_path_factory.mktemp("aarch64"))
    system = _debian_system(_cache() / "aarch64-debian")
    python = max(system.glob("usr/bin/python3.*[0-9]"), default=None)
    assert python is not None, f"no Python in {system}"
    wheels = _cache() / f"aarch64-{python.name}"
    return Aarch64(qemu, system, python, _unpacked_wheels(wheels, python.name[6:]), library)


def _cache() -> Path:
    chosen = os.environ.get("EDGE_LLM_TEST_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "edge-llm-tests"


def _tool(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.skip(f"there is no {' or '.join(names)}")


def _cross_compile(folder: Path) -> Path:
    """The core for aarch64, warnings being errors."""
    _tool("aarch64-linux-gnu-g++")
    cmake = _tool("cmake")
    toolchain = NATIVE / "cmake" / "aarch64-linux-gnu.cmake"
    for command in (
        [cmake, "-S", str(NATIVE), "-B", str(folder), f"-DCMAKE_TOOLCHAIN_FILE={toolchain}"],
        [cmake, "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "libedge_llm.so"


def _debian_system(folder: Path) -> Path:
    """Debian's arm64 packages with all that they depend on, unpacked."""
    system = folder / "system"
    if system.is_dir():
        return system
    apt = [_tool("apt-get"), "-q", "-o", "Debug::NoLocking=1"]
    for name in ("APT::Architecture", "APT::Architectures"):
        apt += ["-o", f"{name}=arm64"]
    # A package manager of its own that knows of nothing installed.
    state, archives = folder / "state", folder / "archives"
    for path in (state / "lists" / "partial", archives / "archives" / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    apt += ["-o", f"Dir::State={state}", "-o", "Dir::State::status=/dev/null"]
    apt += ["-o", f"Dir::Cache={archives}", "-o", "APT::Sandbox::User="]
    apt += ["-o", "Binary::apt-get::APT::Keep-Downloaded-Packages=true"]
    _fetch([*apt, "update"], "Debian's arm64 package lists")
    install = ["install", "--download-only", "--yes", "--no-install-recommends", *DEBIAN]
    _fetch([*apt, *install], "Debian's arm64 packages")
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    for package in sorted((archives / "archives").glob("*.deb")):
        subprocess.run([_tool("dpkg-deb"), "-x", str(package), str(partial)], check=True)
    shutil.rmtree(archives)
    shutil.rmtree(state)
    return partial.rename(system)


def _unpacked_wheels(folder: Path, python: str) -> Path:
    """Wheels for that Python version with all that they depend on, unpacked into one folder."""
    wanted = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    site = folder / "-".join(wanted).replace("==", "-")
    if site.is_dir():
        return site
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--only-binary", ":all:", "--python-version", python, "--dest", str(wheels)]
    command += [option for name in PLATFORMS for option in ("--platform", name)]
    _fetch([*command, *wanted], "aarch64 wheels")
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(partial)
    shutil.rmtree(wheels)
    return partial.rename(site)


def _fetch(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what} cannot be had: no answer")
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        pytest.skip(f"{what} cannot be had: {lines[-1]}")
