"""Fixtures of every test of the command line."""

from __future__ import annotations

import io

import pytest


@pytest.fixture(autouse=True)
def nothing_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is empty: pytest's own refuses to be read."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
