"""The backends by name.

A backend's module has three functions: ``load(plan, weights, *, sampleable, limits) -> Executor``,
``groups(plan, kv_dtype) -> tuple[StateGroup, ...]`` and ``block_size() -> int``. Modules are
imported when asked for, so that naming the PyTorch backend costs nothing where it is not used.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ConfigError, MissingDependencyError
from edge_llm.extras import EXTRAS
from edge_llm.program.file import Program
from edge_llm.program.ops import KV_DTYPES
from edge_llm.program.plan import Plan
from edge_llm.runner.adapters.plan import Adapted
from edge_llm.runner.backends.shortage import shortage
from edge_llm.runner.executor import Executor, Int32, Limits, StateGroup

_log = logging.getLogger(__name__)

BACKENDS: MappingProxyType[str, str] = MappingProxyType(
    {
        "native": "edge_llm.runner.backends.native",
        "torch": "edge_llm.runner.backends.torch",
    }
)


class Backend(Protocol):
    """The functions of a backend's module."""

    def load(
        self,
        plan: Plan,
        weights: Mapping[str, NDArray[np.uint8]],
        *,
        sampleable: int,
        limits: Limits,
    ) -> Executor:
        """Make an executor for ``plan``, which must have passed `check_plan`. ``weights`` maps
        tensor names to packed bytes ([bytes] uint8), which may be borrowed while it lives. Token
        ids from ``sampleable`` on are never sampled.

        Raises:
            NativeError, ConfigError: the backend is not usable here, or refuses the plan.
            CapacityError: the memory for ``limits`` cannot be had.
        """

    def groups(self, plan: Plan, kv_dtype: str) -> tuple[StateGroup, ...]:
        """Return the groups of the plan's states, in the order of `Plan.groups`."""

    def block_size(self) -> int:
        """Return the positions of a block."""


def backend(name: str) -> Backend:
    """Return the backend called ``name``.

    Raises:
        ConfigError: there is none of that name.
        MissingDependencyError: its library is not installed.
    """
    if not isinstance(name, str) or name not in BACKENDS:
        raise ConfigError(f"backend is {name!r}, expected one of: {', '.join(BACKENDS)}")
    try:
        return cast(Backend, importlib.import_module(BACKENDS[name]))
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("edge_llm"):
            raise
        raise MissingDependencyError(
            f"the {name} backend needs {exc.name}, which is not installed",
            hint=EXTRAS["export"].install,
        ) from exc


def check_context(program: Program, context: int) -> None:
    """Refuse a longer context than the program's; 0 means that.

    Raises:
        ConfigError: it is longer.
    """
    if not 0 <= context <= program.plan.context:
        raise ConfigError(
            f"context is {context}, the program allows at most {program.plan.context}",
            hint=_longer(context, program.documents.model.trained_context),
        )


def open_executor(
    program: Program,
    limits: Limits,
    *,
    name: str = "native",
    weights: Mapping[str, NDArray[np.uint8]] | None = None,
    beside: Adapted | None = None,
) -> Executor:
    """Load a program, with the adapters of ``beside``. ``weights`` maps tensor names to packed
    bytes ([bytes] uint8) where they are not to be read from the file. Where they are, and memory
    does not hold them, a warning says what that costs, and the pages of experts are asked for
    ahead.

    Raises:
        ConfigError: a longer context than the program's, an unknown KV type, or as `backend` and
            its ``load``.
        MissingDependencyError: as `backend`.
        NativeError: the backend refuses the program.
        CapacityError: the memory for ``limits`` cannot be had.
    """
    check_context(program, limits.context)
    if limits.kv_dtype not in KV_DTYPES:
        raise ConfigError(
            f"kv_dtype is {limits.kv_dtype!r}, expected one of: {', '.join(KV_DTYPES)}"
        )
    lacking = shortage(program) if weights is None else None
    if lacking is not None:
        _log.warning("%s: %s", program.path.name, lacking)
        program.use_small_pages()
        limits = replace(limits, read_ahead=True)
    if weights is None:
        weights = {weight.tensor: program.weight_data(weight) for weight in program.plan.weights}
    return backend(name).load(
        program.plan if beside is None else beside.plan,
        weights if beside is None else {**weights, **beside.weights},
        sampleable=program.documents.tokenizer.size,
        limits=limits,
    )


def _longer(context: int, trained: int) -> str | None:
    """Return what helps who wants a longer context than a program's."""
    if context <= 0:
        return None
    if context <= trained:
        return f"export it again with --context {context}"
    return f"the model's own context is {trained}: no program of it allows more"


def blocks_of(plan: Plan, positions: int, *, name: str = "native") -> tuple[int, ...]:
    """Return the blocks that hold ``positions`` positions, for each group of the plan's states."""
    return (-(-positions // backend(name).block_size()),) * len(plan.groups)


def block_tables(blocks: tuple[int, ...], sequences: int = 1) -> tuple[Int32, ...]:
    """Return tables that divide the ``blocks`` of each group among ``sequences`` sequences:
    [sequences, blocks / sequences] int32 each."""
    return tuple(np.arange(count, dtype=np.int32).reshape(sequences, -1) for count in blocks)
