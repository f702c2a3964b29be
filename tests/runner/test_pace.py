from __future__ import annotations

from edge_llm.runner.engine.pace import LEAST_TOKENS, STEP_SECONDS, Pace


def settled(rate: float, least: int = 8, most: int = 256) -> int:
    """The budget after some steps on a machine of ``rate`` tokens a second."""
    pace = Pace(least, most)
    for _ in range(20):
        pace.record(pace.tokens, pace.tokens / rate)
    return pace.tokens


def test_a_step_lasts_about_as_long_as_meant() -> None:
    assert settled(1000) == 1000 * STEP_SECONDS
    assert settled(1e6) == 256
    assert settled(10) == LEAST_TOKENS


def test_every_running_sequence_fits() -> None:
    assert settled(10, least=50) == 50
    assert settled(10, least=8, most=16) == 16
    assert Pace(100, 256).tokens == 100


def test_one_slow_step_changes_little_and_decoding_nothing() -> None:
    pace = Pace(8, 256)
    for _ in range(20):
        pace.record(256, 0.01)
    pace.record(256, 100.0)
    assert pace.tokens == 128
    pace.record(8, 100.0)
    assert pace.tokens == 128
