"""The imports of a verb before it does anything: the rest would delay the first token."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_llm.cli.main import VERBS, build_parser

PROBE = """
import sys
from edge_llm.cli import main

try:
    main.main([sys.argv[1], "--help"])
except SystemExit:
    pass
print("imported:", *sorted(sys.modules))
"""


def verbs_of(parser: argparse.ArgumentParser) -> list[str]:
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return list(action.choices)


def test_all_verbs_without_one() -> None:
    assert verbs_of(build_parser()) == list(VERBS)
    assert verbs_of(build_parser("no such verb")) == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_its_parser(verb: str) -> None:
    assert verb in verbs_of(build_parser(verb))


def test_run_imports_no_other_verb() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "run"], capture_output=True, text=True, check=True
    )
    assert "usage: edge-llm run" in done.stdout
    imported = set(done.stdout.split("imported:")[1].split())
    assert "edge_llm.cli.run" in imported
    others = {f"edge_llm.cli.{module}" for module in VERBS.values()} - {"edge_llm.cli.run"}
    assert not imported & others
    assert not {"torch", "jinja2", "edge_llm.catalogue.hub"} & imported


def test_finding_a_program_needs_no_hub() -> None:
    code = "import sys, edge_llm.catalogue as c; c.find_program; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unneeded = {"edge_llm.catalogue.hub", "edge_llm.catalogue.models", "urllib.request"}
    assert not unneeded & set(done.stdout.split())


def test_the_catalogue_knows_what_it_does_not_have() -> None:
    from edge_llm import catalogue

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = catalogue.nothing
    assert all(getattr(catalogue, name) is not None for name in catalogue.__all__)


def test_chat_imports_what_it_shows_with_once_it_talks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "chat"], capture_output=True, text=True, check=True
    )
    assert "usage: edge-llm chat" in done.stdout
    imported = set(done.stdout.split("imported:")[1].split())
    assert not {"rich", "prompt_toolkit", "markdown_it", "numpy", "asyncio"} & imported


@pytest.mark.parametrize("verb", ["ls", "config", "default"])
def test_what_only_lists_reads_with_the_standard_library(
    verb: str, tiny_program: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "tiny.edge").symlink_to(tiny_program("8da4w"))
    done = subprocess.run(
        [sys.executable, "-c", PROBE.replace(', "--help"', ""), verb],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "EDGE_LLM_HOME": str(tmp_path)},
    )
    imported = set(done.stdout.split("imported:")[1].split())
    assert not {"numpy", "rich", "prompt_toolkit", "yaml", "urllib.request"} & imported
    assert (" 8da4w " in done.stdout) == (verb == "ls")
