"""Guards of the folder layout: six top-level folders that are sub-packages through links."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("configs", "export", "llm", "runner", "server", "tokenizers")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_init_at_the_top(folder: str) -> None:
    # With one, `import tokenizers` from the root would find our folder instead of the library.
    assert not (ROOT / folder / "__init__.py").exists()


def test_links_are_the_folders() -> None:
    links = {path.name: path for path in (ROOT / "src" / "edge_llm").iterdir() if path.is_symlink()}
    assert sorted(links) == list(FOLDERS)
    for name, link in links.items():
        assert os.readlink(link) == f"../../{name}"
        assert link.resolve() == ROOT / name


def test_the_library_tokenizers_is_the_installed_one() -> None:
    library = importlib.import_module("tokenizers")
    assert library.__file__ is not None
    assert "site-packages" in Path(library.__file__).parts


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_run_time_loads_no_torch() -> None:
    code = (
        "import sys, edge_llm\n"
        "from edge_llm import api, catalogue\n"
        "from edge_llm.cli import main\n"
        "from edge_llm.runner.engine import engine\n"
        "from edge_llm.server import app, run\n"
        "print([name for name in ('torch', 'torchao', 'transformers') if name in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_import_is_light() -> None:
    code = "import sys, edge_llm; print('numpy' in sys.modules, 'tokenizers' in sys.modules)"
    assert run_python(code) == "False False"


def test_blocking_programs_load_no_event_loop() -> None:
    code = (
        "import sys; from edge_llm import api; from edge_llm.cli import run; "
        "print('asyncio' in sys.modules)"
    )
    assert run_python(code) == "False"


def test_no_module_has_two_names() -> None:
    code = (
        "import sys, collections\n"
        "from edge_llm import api\n"
        "from edge_llm.server import run\n"
        "seen = collections.defaultdict(set)\n"
        "for name, module in list(sys.modules.items()):\n"
        "    file = getattr(module, '__file__', None)\n"
        "    if file and name.startswith(('edge_llm', 'runner', 'server', 'llm', 'export')):\n"
        "        seen[file].add(name)\n"
        "print([names for names in seen.values() if len(names) > 1])"
    )
    assert run_python(code) == "[]"


def test_version_is_one() -> None:
    import edge_llm

    assert importlib.metadata.version("edge-llm") == edge_llm.__version__
