"""The packages that a base installation leaves out: which extra has them, and how to get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from edge_llm.errors import MissingDependencyError


@dataclass(frozen=True, slots=True)
class Extra:
    """``modules`` are what is imported, ``install`` is the command that installs them."""

    modules: tuple[str, ...]
    install: str


EXTRAS: Mapping[str, Extra] = {
    "export": Extra(
        ("torch", "torchao"),
        "pip install 'torch==2.13.*' 'torchao==0.18.*' "
        "--extra-index-url https://download.pytorch.org/whl/cpu  "
        "(that index has PyTorch for processors alone: a small download)",
    ),
    "charts": Extra(("matplotlib",), "pip install 'matplotlib>=3.9'"),
    "eval": Extra(("lm_eval",), "pip install 'lm-eval==0.4.13'"),
}


def has_extra(name: str) -> bool:
    """Tell whether all modules of an extra can be imported; imports none."""
    return not _missing(name)


def require_extra(name: str, what: str) -> None:
    """Check that all modules of an extra can be imported; imports none.

    Raises:
        MissingDependencyError: one is not installed. The message begins with ``what``, which needs
            it; the hint has the command that installs it.
    """
    missing = _missing(name)
    if missing:
        raise MissingDependencyError(
            f"{what} needs {' and '.join(missing)}, which this environment lacks",
            hint=EXTRAS[name].install,
        )


def _missing(name: str) -> list[str]:
    return [module for module in EXTRAS[name].modules if find_spec(module) is None]
