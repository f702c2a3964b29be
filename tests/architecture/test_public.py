"""The public surface, exactly."""

from __future__ import annotations

import subprocess
import sys

import pytest

import edge_llm


def test_every_public_name_resolves() -> None:
    for name in edge_llm.__all__:
        assert callable(getattr(edge_llm, name)), name


def test_names_without_a_home_are_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        edge_llm.no_such_name  # noqa: B018


def test_export_is_the_function_whatever_was_imported_first() -> None:
    code = (
        "from edge_llm.export.recipe import Recipe\n"
        "from edge_llm.export import pipeline\n"
        "import edge_llm\n"
        "assert edge_llm.export is pipeline.export\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
