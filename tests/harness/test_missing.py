"""Where lm-evaluation-harness is not installed."""

from __future__ import annotations

import sys

import pytest

from edge_llm.errors import MissingDependencyError


def test_without_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingDependencyError, match=r"edge_llm\.harness needs lm_eval"):
        import edge_llm.harness  # noqa: F401
