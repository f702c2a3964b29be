"""The sampling options that `run` and `chat` share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_llm.api import LLM
    from edge_llm.runner.config import SamplingParams

_FIELDS = (
    ("temperature", float, "0 takes the likeliest token"),
    ("top_k", int, "keep the K likeliest tokens; 0: all"),
    ("top_p", float, "keep the likeliest tokens of this total probability"),
    ("min_p", float, "drop tokens below this share of the likeliest one's probability"),
    ("repetition_penalty", float, "above 1, tokens already seen become less likely"),
    ("seed", int, "the same seed gives the same text"),
    ("max_tokens", int, "stop after this many tokens (default: at the context limit)"),
)


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling (defaults: the model's own)")
    for name, kind, text in _FIELDS:
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)


def sampling_params(llm: LLM, arguments: argparse.Namespace) -> SamplingParams:
    """The program's defaults with what the command line sets."""
    given = {name: getattr(arguments, name) for name, _, _ in _FIELDS}
    return llm.default_params(**{name: value for name, value in given.items() if value is not None})
