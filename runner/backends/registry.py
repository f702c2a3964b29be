"""The backends by name.

A backend's module has three functions: ``load(plan, weights, *, sampleable, limits) -> Executor``,
``page_bytes(plan) -> int`` and ``page_tokens() -> int``. Modules are imported when asked for, so
that naming the PyTorch backend costs nothing where it is not used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ConfigError, MissingDependencyError
from edge_llm.program.plan import Plan
from edge_llm.runner.executor import Executor, Limits

BACKENDS: MappingProxyType[str, str] = MappingProxyType(
    {
        "native": "edge_llm.runner.backends.native",
        "torch": "edge_llm.runner.backends.torch",
    }
)


class Backend(Protocol):
    """What a backend's module offers."""

    def load(
        self,
        plan: Plan,
        weights: Mapping[str, NDArray[np.uint8]],
        *,
        sampleable: int,
        limits: Limits,
    ) -> Executor:
        """Makes an executor for ``plan``, which must have passed `check_plan`. ``weights`` maps
        tensor names to packed bytes ([bytes] uint8), which may be borrowed while it lives. Token
        ids from ``sampleable`` on are never sampled.

        Raises:
            NativeError, ConfigError: the backend is not usable here, or refuses the plan.
            CapacityError: the memory for ``limits`` cannot be had.
        """

    def page_bytes(self, plan: Plan) -> int:
        """Bytes of one KV page."""

    def page_tokens(self) -> int:
        """Tokens of one KV page."""


def backend(name: str) -> Backend:
    """The backend called ``name``.

    Raises:
        ConfigError: there is none of that name.
        MissingDependencyError: its library is not installed.
    """
    if name not in BACKENDS:
        raise ConfigError(f"backend is {name!r}, expected one of: {', '.join(BACKENDS)}")
    try:
        return cast(Backend, importlib.import_module(BACKENDS[name]))
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("edge_llm"):
            raise
        raise MissingDependencyError(
            f"the {name} backend needs {exc.name}, which is not installed",
            hint="pip install 'edge-llm[export]'",
        ) from exc
