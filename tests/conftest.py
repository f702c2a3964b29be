"""Fixtures of the whole suite."""

from __future__ import annotations

pytest_plugins = [
    "fixtures_assets",
    "fixtures_checkpoints",
    "fixtures_gguf",
    "fixtures_hub",
    "fixtures_meta",
    "fixtures_programs",
]
