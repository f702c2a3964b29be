"""From the fields of a request to sampling parameters."""

from __future__ import annotations

from typing import Any

from edge_llm.runner.sampling import SamplingParams
from edge_llm.server.models.model import Model
from edge_llm.server.requests.sampling import Generating


def sampling_params(model: Model, request: Generating, **overrides: Any) -> SamplingParams:
    """Return how to sample: what the request says, else the model's authors. ``overrides``:
    parameters for which the route has fields of its own; None is "not given"."""
    given = {name: value for name, value in overrides.items() if value is not None}
    return model.default_params(**(request.sampling() | given))
