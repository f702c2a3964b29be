"""Backends by name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.errors import ConfigError, MissingDependencyError
from edge_llm.program.file import Program
from edge_llm.runner.backends import native
from edge_llm.runner.backends.registry import BACKENDS, backend, open_executor
from edge_llm.runner.executor import Limits


def test_backends_are_modules_with_the_three_functions() -> None:
    assert backend("native") is native
    for name in BACKENDS:
        module = backend(name)
        for function in ("load", "groups", "block_size"):
            assert callable(getattr(module, function)), (name, function)


def test_unknown_backend_names_the_known() -> None:
    with pytest.raises(ConfigError, match="'tpu', expected one of: native, torch"):
        backend("tpu")


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": 257}, "context is 257, the program allows at most 256"),
        ({"context": -1}, "context is -1"),
        ({"kv_dtype": "f64"}, "kv_dtype is 'f64', expected one of: f32, f16, i8"),
    ],
)
def test_limits_beyond_the_program_are_refused(
    tiny_program: Callable[..., Path], name: str, change: dict[str, Any], message: str
) -> None:
    limits = Limits(max_tokens=8, max_rows=8, max_sequences=1, blocks=(4,), kv_dtype="f16")
    with Program.open(tiny_program()) as program, pytest.raises(ConfigError, match=message):
        open_executor(program, dataclasses.replace(limits, **change), name=name)


@pytest.mark.parametrize(
    ("context", "hint"),
    [
        (300, "export it again with --context 300"),
        (1000, "the model's own context is 512: no program of it allows more"),
    ],
)
def test_a_longer_context_is_advised_where_the_model_has_it(
    tiny_program: Callable[..., Path], context: int, hint: str
) -> None:
    limits = Limits(max_tokens=8, max_rows=8, max_sequences=1, blocks=(4,), kv_dtype="f16")
    with Program.open(tiny_program()) as program:
        model = dataclasses.replace(program.documents.model, trained_context=512)
        documents = dataclasses.replace(program.documents, model=model)
        program.documents = documents
        with pytest.raises(ConfigError) as caught:
            open_executor(program, dataclasses.replace(limits, context=context))
    assert caught.value.hint == hint


def test_absent_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match="needs torch") as caught:
        backend("torch")
    assert "pip install 'torch==" in (caught.value.hint or "")
