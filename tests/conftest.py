"""Fixtures of the whole suite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "fixtures_assets",
    "fixtures_checkpoints",
    "fixtures_gguf",
    "fixtures_hub",
    "fixtures_meta",
    "fixtures_programs",
]

collect_ignore = ["clients"]  # they run in environments of their own: tools/clients.py

# No test looks at the clock: a machine that is busy, or a core that checks itself, is slow.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")
