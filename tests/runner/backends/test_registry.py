"""Backends by name."""

from __future__ import annotations

import importlib

import pytest

from edge_llm.errors import ConfigError, MissingDependencyError
from edge_llm.runner.backends import native
from edge_llm.runner.backends.registry import BACKENDS, backend


def test_backends_are_modules_with_the_three_functions() -> None:
    assert backend("native") is native
    for name in BACKENDS:
        module = backend(name)
        for function in ("load", "groups", "block_size"):
            assert callable(getattr(module, function)), (name, function)


def test_unknown_backend_names_the_known() -> None:
    with pytest.raises(ConfigError, match="'tpu', expected one of: native, torch"):
        backend("tpu")


def test_absent_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match="needs torch") as caught:
        backend("torch")
    assert caught.value.hint is not None
    assert "export" in caught.value.hint
