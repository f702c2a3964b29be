"""The sampling options that `run` and `chat` share: those of the table of sampling parameters."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_llm.api import LLM
    from edge_llm.runner.sampling import SamplingParams


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for every sampling parameter that has one."""
    from edge_llm.runner.sampling import PARAMETERS

    forms: dict[str, dict[str, Any]] = {
        "integer": {"type": int, "metavar": "N"},
        "number": {"type": float, "metavar": "X"},
        "boolean": {"action": "store_true", "default": None},
        "strings": {"action": "append", "metavar": "TEXT"},
    }
    common = parser.add_argument_group("sampling (defaults: the model's own)")
    rare = parser.add_argument_group("sampling, rarely needed")
    for name, parameter in PARAMETERS.items():
        if parameter.cli:
            form = forms.get(parameter.kind, {"choices": parameter.choices})
            group = rare if parameter.rare else common
            group.add_argument(f"--{name.replace('_', '-')}", help=parameter.meaning, **form)


def given_sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that the command line sets, by name."""
    from edge_llm.runner.sampling import PARAMETERS

    given = {name: getattr(arguments, name, None) for name in PARAMETERS}
    return {name: value for name, value in given.items() if value is not None}


def sampling_params(llm: LLM, arguments: argparse.Namespace) -> SamplingParams:
    """Return the program's defaults with what the command line sets.

    Raises:
        RequestError: a value out of range.
    """
    return llm.default_params(**given_sampling(arguments))
