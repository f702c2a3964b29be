"""The public surface, exactly."""

from __future__ import annotations

import subprocess
import sys

import pytest

import edge_llm

PUBLIC = """
    LLM AmbiguousNameError CapacityError CheckpointError Completion ConfigError
    ContextLengthError EdgeLLMError
    ExportError GenerationError MissingDependencyError NativeError Piece ProgramError
    QualityGateError Recipe RequestError SamplingParams SourceError Stream TemplateError
    TokenizerError Tool ToolCall ToolCallDelta UnsupportedOperatorError aload export load
"""


def test_the_public_names_are_these() -> None:
    assert edge_llm.__all__ == PUBLIC.split()
    assert dir(edge_llm) == sorted([*edge_llm.__all__, "__version__"])


def test_every_public_name_is_documented() -> None:
    for name in edge_llm.__all__:
        public = getattr(edge_llm, name)
        assert callable(public), name
        assert public.__doc__, name
        if public.__module__ != "edge_llm.errors":
            for attribute, member in vars(public).items():
                if not attribute.startswith("_") and callable(member):
                    assert member.__doc__, f"{name}.{attribute}"


def test_the_package_says_what_a_completion_has() -> None:
    _, _, after = str(edge_llm.__doc__).partition("an answer: ")
    names = after.partition("\n")[0].split(", ")
    assert names
    assert all(hasattr(edge_llm.Completion, name) for name in names), names


def test_names_without_a_home_are_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        edge_llm.no_such_name  # noqa: B018


def test_export_is_the_function_whatever_was_imported_first() -> None:
    code = (
        "from edge_llm.export.recipes.recipe import Recipe\n"
        "from edge_llm.export import pipeline\n"
        "import edge_llm\n"
        "assert edge_llm.export is pipeline.export\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
