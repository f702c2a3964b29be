"""The refusals of the engine's options."""

from __future__ import annotations

import pytest

from edge_llm.errors import ConfigError
from edge_llm.runner.config import RunnerConfig


@pytest.mark.parametrize("name", ["threads", "kv_budget", "max_sequences", "step_tokens"])
@pytest.mark.parametrize("value", ["2", 2.0, True, [2]])
def test_what_is_no_whole_number_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is .*, expected a whole number"):
        RunnerConfig(**{name: value})


@pytest.mark.parametrize("value", [2**16 + 1, 2**31, 10**30])
def test_the_tokens_of_a_step_are_bounded(value: int) -> None:
    with pytest.raises(ConfigError, match=r"step_tokens is .*, expected at most 65536"):
        RunnerConfig(step_tokens=value)
