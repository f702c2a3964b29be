"""From the fields of a request to the jobs of the generation loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_llm.api.prompts import jobs_of
from edge_llm.runner.generation.loop import Job
from edge_llm.server.requests.sampling import Generating
from edge_llm.server.service import Model


def sampling_jobs(
    model: Model,
    request: Generating,
    prompts: Sequence[Sequence[int]],
    *,
    answers: bool = False,
    **overrides: Any,
) -> list[Job]:
    """Return the jobs of ``n`` answers to each prompt. ``overrides``: sampling parameters for which
    the route has fields of its own; None is "not given"."""
    given = {name: value for name, value in overrides.items() if value is not None}
    params = model.default_params(**(request.sampling() | given))
    return jobs_of(model.tokenizer, prompts, params, request.n, answers=answers)
