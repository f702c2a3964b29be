"""edge-llm: the PyTorch-native way to run LLMs on the device in front of you.

    import edge_llm

    with edge_llm.load("smollm2-135m.edge") as llm:
        for piece in llm.stream("The capital of France is"):
            print(piece.text, end="")

    load, aload      open a program, a GGUF file or a checkpoint's folder: an LLM
    LLM              generate, chat, stream, embed, rerank; the same with an a before it to await
    SamplingParams   how answers are sampled, for every call of an LLM
    Completion       an answer: text, reasoning, tool_calls, finish_reason, stats
    Tool             a function that a chat may call
    export, Recipe   make a program file of a checkpoint; PyTorch (the extra "export") is needed to
                     trace a family that is not known, and to compare the file with eager PyTorch
    EdgeLLMError     the base of every error that is raised on purpose

``help(edge_llm.load)`` and so on tell more of each. Importing this package, loading a program and
serving it never import PyTorch. Names are resolved on first use, so that the import is instant.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_llm.api import LLM, Completion, Piece, Stream, aload, load
    from edge_llm.errors import (
        AmbiguousNameError,
        CapacityError,
        CheckpointError,
        ConfigError,
        ContextLengthError,
        EdgeLLMError,
        ExportError,
        GenerationError,
        MissingDependencyError,
        NativeError,
        ProgramError,
        QualityGateError,
        RequestError,
        SourceError,
        TemplateError,
        TokenizerError,
        UnsupportedOperatorError,
    )
    from edge_llm.export.pipeline import export
    from edge_llm.export.recipes.recipe import Recipe
    from edge_llm.parsed import Tool, ToolCall, ToolCallDelta
    from edge_llm.runner.sampling import SamplingParams

__version__ = "0.1.0"

_HOMES = {
    "LLM": "edge_llm.api",
    "Completion": "edge_llm.api",
    "Piece": "edge_llm.api",
    "Stream": "edge_llm.api",
    "aload": "edge_llm.api",
    "load": "edge_llm.api",
    "AmbiguousNameError": "edge_llm.errors",
    "CapacityError": "edge_llm.errors",
    "CheckpointError": "edge_llm.errors",
    "ConfigError": "edge_llm.errors",
    "ContextLengthError": "edge_llm.errors",
    "EdgeLLMError": "edge_llm.errors",
    "ExportError": "edge_llm.errors",
    "GenerationError": "edge_llm.errors",
    "MissingDependencyError": "edge_llm.errors",
    "NativeError": "edge_llm.errors",
    "ProgramError": "edge_llm.errors",
    "QualityGateError": "edge_llm.errors",
    "RequestError": "edge_llm.errors",
    "SourceError": "edge_llm.errors",
    "TemplateError": "edge_llm.errors",
    "TokenizerError": "edge_llm.errors",
    "UnsupportedOperatorError": "edge_llm.errors",
    "Tool": "edge_llm.parsed",
    "ToolCall": "edge_llm.parsed",
    "ToolCallDelta": "edge_llm.parsed",
    "Recipe": "edge_llm.export.recipes.recipe",
    "SamplingParams": "edge_llm.runner.sampling",
}

__all__ = [
    "LLM",
    "AmbiguousNameError",
    "CapacityError",
    "CheckpointError",
    "Completion",
    "ConfigError",
    "ContextLengthError",
    "EdgeLLMError",
    "ExportError",
    "GenerationError",
    "MissingDependencyError",
    "NativeError",
    "Piece",
    "ProgramError",
    "QualityGateError",
    "Recipe",
    "RequestError",
    "SamplingParams",
    "SourceError",
    "Stream",
    "TemplateError",
    "TokenizerError",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "UnsupportedOperatorError",
    "aload",
    "export",
    "load",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """``edge_llm.export`` is the function, although a folder of that name holds its stages: the
    import system would otherwise put the folder in its place once one of them is imported."""

    @property
    def export(self) -> Any:
        return import_module("edge_llm.export.pipeline").export

    @export.setter
    def export(self, folder: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package
