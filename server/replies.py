"""The parts of replies that every dialect has, for the OpenAPI document."""

from __future__ import annotations

from pydantic import BaseModel

from edge_llm.runner.context import ContextPolicy


class LeftOut(BaseModel):
    """What did not fit the context, and by which policy it was left out: tokens of the prompts,
    with the whole messages among them; tokens behind which windows moved on, so many times."""

    policy: ContextPolicy
    dropped_prompt_tokens: int
    dropped_messages: int
    window_moves: int
    window_dropped_tokens: int
