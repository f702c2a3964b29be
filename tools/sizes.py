"""Installs a wheel into a fresh environment and prints what each package takes.

    python tools/sizes.py dist/edge_llm-*.whl [--extra charts] [--limit 200]

Megabytes are files as installed, with the bytecode that pip compiles; pip itself is not counted.
With an extra, the rows are what it adds to the base. Past ``--limit`` megabytes in all, exit
status 1. The tables of docs/install.md are this output.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

# Run by the Python of the environment: what is installed there, a list of JSON objects.
LIST = """
import importlib.metadata, json, pathlib
rows = []
for found in importlib.metadata.distributions():
    files = [pathlib.Path(found.locate_file(file)) for file in found.files or []]
    about = found.metadata
    rows.append({
        "name": about["Name"],
        "version": found.version,
        "bytes": sum(file.stat().st_size for file in files if file.is_file()),
        "licence": about["License-Expression"] or next(
            (line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or []
             if line.startswith("License :: OSI Approved ::")), None
        ) or (about["License"] or "?").splitlines()[0],
    })
print(json.dumps(rows))
"""
TOOLS = {"pip", "setuptools"}  # of every environment


@dataclass(frozen=True, slots=True)
class Package:
    """An installed distribution. ``licence`` is what its metadata say."""

    name: str
    version: str
    bytes: int
    licence: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--extra", help="print what this extra adds")
    parser.add_argument("--limit", type=float, metavar="MB", help="the most that is allowed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        packages = installed(Path(folder), str(arguments.wheel))
        if arguments.extra:
            base = {package.name for package in packages}
            with_extra = installed(Path(folder), f"{arguments.wheel}[{arguments.extra}]")
            packages = [package for package in with_extra if package.name not in base]
    print(table(packages))
    total = sum(package.bytes for package in packages) / 1e6
    if arguments.limit is not None and total > arguments.limit:
        print(f"{total:.0f} MB, at most {arguments.limit:.0f} allowed", file=sys.stderr)
        return 1
    return 0


def installed(folder: Path, requirement: str) -> list[Package]:
    """Install into the environment in ``folder``, made if need be; return its packages, the largest
    first."""
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    python = folder / scripts / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--only-binary=:all:", requirement], check=True)
    listed = subprocess.run([str(python), "-c", LIST], check=True, capture_output=True, text=True)
    packages = [Package(**row) for row in json.loads(listed.stdout)]
    kept = [package for package in packages if package.name not in TOOLS]
    return sorted(kept, key=lambda package: (-package.bytes, package.name.lower()))


def table(packages: list[Package]) -> str:
    """Return the packages as a table of Markdown, with their sum."""
    lines = ["| package | MB | licence |", "|---|---|---|"]
    for package in packages:
        size = f"{package.bytes / 1e6:.1f}"
        lines.append(f"| {package.name} {package.version} | {size} | {package.licence} |")
    total = sum(package.bytes for package in packages) / 1e6
    return "\n".join([*lines, f"| **all {len(packages)}** | **{total:.0f}** | |"])


if __name__ == "__main__":
    sys.exit(main())
