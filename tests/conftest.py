"""Fixtures of the whole suite."""

from __future__ import annotations

pytest_plugins = ["fixtures_assets", "fixtures_checkpoints", "fixtures_hub", "fixtures_programs"]
