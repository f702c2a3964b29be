"""Builds the source distribution, and from it the wheel for this machine, into dist/.

    python tools/wheel.py [--output dist]

Needs Python with its own modules alone, a C++ compiler, CMake and readelf; the build tools come
from PyPI, into an environment that is gone afterwards. The wheel's library holds the C++ library
inside, so all that it asks of a Linux system is the C library and the compiler's support library,
and the newest C library that its symbols name is what its manylinux tag (PEP 600) says.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ("build", "wheel")
# Of the libraries that every manylinux system has, those that ours may need.
SYSTEM = re.compile(r"lib(c|m|pthread|dl|rt|gcc_s)\.so\.\d|ld-linux.*\.so\.\d")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    output = parser.parse_args().output.resolve()
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder) / "tools", with_pip=True)
        run_tool(folder, "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS)
        made = Path(folder) / "made"
        static = "-Ccmake.define.EDGE_STATIC_RUNTIME=ON"
        run_tool(folder, "build", "--outdir", str(made), static, str(ROOT))
        (wheel,) = made.glob("*.whl")
        if sys.platform == "linux":
            wheel = tagged(wheel, folder)
        (source,) = made.glob("*.tar.gz")
        output.mkdir(parents=True, exist_ok=True)
        for path in (source, wheel):
            (output / path.name).write_bytes(path.read_bytes())
            print(output / path.name)


def run_tool(folder: str, module: str, *arguments: str) -> None:
    """Run a module with the Python of the environment of build tools in ``folder``."""
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    python = Path(folder) / "tools" / scripts / "python"
    subprocess.run([str(python), "-m", module, *arguments], check=True)


def tagged(wheel: Path, folder: str) -> Path:
    """Return the wheel under the oldest manylinux tag that is true of it."""
    libraries = Path(folder) / "libraries"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(libraries, names)
    versions = [glibc(libraries / name) for name in names]
    if not versions:
        sys.exit(f"{wheel.name} holds no library")
    major, minor = max(versions)
    tag = f"manylinux_{major}_{minor}_{platform.machine()}"
    run_tool(folder, "wheel", "tags", "--remove", "--platform-tag", tag, str(wheel))
    (found,) = wheel.parent.glob("*.whl")
    return found


def glibc(library: Path) -> tuple[int, int]:
    """Return the C library's version that ``library`` needs, at least manylinux's first, 2.5."""
    text = subprocess.run(
        ["readelf", "--wide", "--dynamic", "--version-info", str(library)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
    if foreign := [name for name in needed if not SYSTEM.fullmatch(name)]:
        sys.exit(f"{library.name} needs {', '.join(foreign)}, which not every Linux has")
    if [name for name in re.findall(r"Name: GCC_(\d+)", text) if int(name) > 4]:
        sys.exit(f"{library.name} needs a newer libgcc_s than manylinux's first")
    versions = re.findall(r"Name: GLIBC_(\d+)\.(\d+)", text)
    return max([(2, 5), *((int(major), int(minor)) for major, minor in versions)])


if __name__ == "__main__":
    main()
