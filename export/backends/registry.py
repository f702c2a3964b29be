"""Backends by name: what the ahead-of-time half of one must offer, and where it is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ConfigError
from edge_llm.export.weights.prepared import PreparedWeight
from edge_llm.program.formats import WeightFormat


class Backend(Protocol):
    """The ahead-of-time half of a backend; a module with these names is one."""

    @property
    def name(self) -> str: ...

    @property
    def operators(self) -> frozenset[str]:
        """The keys of program.ops.OPS that its run-time half executes."""

    @property
    def formats(self) -> frozenset[WeightFormat]:
        """The formats that it takes for matrices."""

    def packed_bytes(self, form: WeightFormat, n: int, k: int) -> int:
        """Bytes of a packed matrix [n, k]."""

    def pack(self, weight: PreparedWeight) -> NDArray[np.uint8]:
        """The packed bytes; chunks of a multiple of ``row_multiple`` rows may be joined."""

    @property
    def row_multiple(self) -> int: ...


BACKENDS: Mapping[str, str] = MappingProxyType({"native": "edge_llm.export.backends.native"})


def get_backend(name: str) -> Backend:
    """The backend called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in BACKENDS:
        raise ConfigError(f"no export backend {name!r}; backends: {', '.join(BACKENDS)}")
    return cast(Backend, import_module(BACKENDS[name]))
