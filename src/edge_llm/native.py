"""The native core as a library: where it is, its status codes as typed errors, what it says of this
machine. The structs of its ABI are in `abi.py`; running programs is runner/backends/native.py."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from ctypes import c_double, c_int32
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edge_llm import abi
from edge_llm.errors import CapacityError, NativeError

LIBRARY_VARIABLE = "EDGE_LLM_NATIVE"

_OK, _OUT_OF_MEMORY = 0, 2


def library_path() -> Path:
    """Return where the native library is, or should be: ``EDGE_LLM_NATIVE``, else inside the
    package."""
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        return Path(override)
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    return Path(str(files("edge_llm") / "_native" / f"libedge_llm.{suffix}"))


@functools.cache
def library() -> ctypes.CDLL:
    """The native library, loaded once, with every function's types declared.

    Raises:
        NativeError: the library is missing, cannot be loaded, or speaks another ABI version.
    """
    return open_library(library_path())


def open_library(path: Path) -> ctypes.CDLL:
    """Loads the native library at ``path``; see ``library``."""
    if not path.is_file():
        raise NativeError(
            f"the native core is missing: there is no file {path}",
            hint="install the edge-llm package with its native part, "
            f"or set {LIBRARY_VARIABLE} to a built library",
        )
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.edge_abi_version.restype = c_int32
        version = int(loaded.edge_abi_version())
    except (OSError, AttributeError) as exc:
        raise NativeError(f"{path} is no native core that this system can load: {exc}") from exc
    if version != abi.ABI_VERSION:
        raise NativeError(
            f"{path} has ABI version {version}, expected {abi.ABI_VERSION}",
            hint="the Python files and the native library are from different builds: reinstall",
        )
    for name, (result, arguments) in abi.FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    return loaded


def check(status: int) -> None:
    """Raises what an edge_status says.

    Raises:
        CapacityError: the core could not get the memory.
        NativeError: any other failure.
    """
    if status == _OK:
        return
    message = (library().edge_last_error() or b"").decode("utf-8", "replace")
    if status == _OUT_OF_MEMORY:
        raise CapacityError(f"native core: {message}")
    raise NativeError(f"native core: {message}")


def isa() -> str:
    """The instruction set whose kernels run here, for example "avx2".

    Raises:
        NativeError: EDGE_LLM_ISA names one that is unknown or that this processor lacks.
    """
    name = library().edge_isa()
    if name is None:
        message = (library().edge_last_error() or b"").decode("utf-8", "replace")
        raise NativeError(f"native core: {message}")
    return str(name.decode())


def default_threads() -> int:
    """Physical cores that this process may use, measured where the system is not sure of them."""
    return int(library().edge_default_threads())


def measure_cores(cpus: int) -> int:
    """Return how many of ``cpus`` logical CPUs have a core of their own: half of them, if
    arithmetic in as many threads takes each of them much longer than alone, else all. Takes about
    3 ms.

    Raises:
        NativeError: ``cpus`` is not 1 to 1024.
    """
    cores = c_int32()
    check(library().edge_measure_cores(cpus, ctypes.byref(cores)))
    return int(cores.value)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The rates that ``threads`` threads reach together on this machine: bytes read from memory a
    second, and int8 multiplications plus additions a second with the instruction set ``isa``."""

    threads: int
    isa: str
    bytes_per_second: float
    operations_per_second: float


def ceilings(threads: int = 0) -> Ceilings:
    """Measures for about half a second; ``threads`` 0: physical cores.

    Raises:
        NativeError: the core is missing, or cannot run that many threads.
        CapacityError: there is no memory to measure the bandwidth with (512 MB).
    """
    threads = threads or default_threads()
    rates = []
    for ceiling in range(2):
        rate = c_double()
        check(library().edge_measure(ceiling, threads, ctypes.byref(rate)))
        rates.append(rate.value)
    return Ceilings(threads, isa(), *rates)
