"""Builds the documentation as a site that works without a network, into build/site/html.

    python tools/site.py [--serve]

README, docs/ and what they link to are copied first, as they lie in the repository, so that links
are the same in both. Any warning, such as of a link that leads nowhere, is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site" / "source"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="show it at 127.0.0.1:8000 instead")
    serve = parser.parse_args().serve
    shutil.rmtree(SOURCE, ignore_errors=True)
    for path in sorted(linked_files(ROOT / "README.md") | linked_files(ROOT / "docs/index.md")):
        copy = SOURCE / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    verb = "serve" if serve else "build"
    command = [sys.executable, "-m", "mkdocs", verb, "--strict"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def linked_files(first: Path) -> set[Path]:
    """Return the page, the files that it links to, and those that linked pages link to."""
    found: set[Path] = set()
    new = {first}
    while new:
        page = new.pop()
        found.add(page)
        if page.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if path.is_file() and path.is_relative_to(ROOT) and path not in found:
                new.add(path)
    return found


if __name__ == "__main__":
    sys.exit(main())
