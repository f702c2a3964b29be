"""The native core's C ABI (runner/native/include/edge_llm.h) as ctypes sees it.

Struct mirrors, the search for the library, and the translation of its status codes into typed
errors. Everything else about running programs is in runner/backends/native.py.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_uint32,
    c_uint64,
    c_void_p,
)
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edge_llm.errors import CapacityError, NativeError
from edge_llm.program import ops

ABI_VERSION = 8
MAX_LOGPROBS = 20
LIBRARY_VARIABLE = "EDGE_LLM_NATIVE"

_OK, _OUT_OF_MEMORY = 0, 2


class Instruction(Structure):
    _fields_ = [
        ("op", c_int32),
        ("input_count", c_int32),
        ("output_count", c_int32),
        ("inputs", c_int32 * ops.MAX_INPUTS),
        ("outputs", c_int32 * ops.MAX_OUTPUTS),
        ("weights", c_int32 * ops.MAX_WEIGHTS),
        ("states", c_int32 * ops.MAX_STATES),
        ("ints", c_int32 * ops.MAX_INTS),
        ("floats", c_float * ops.MAX_FLOATS),
    ]


class Value(Structure):
    _fields_ = [("rows", c_int32), ("width", c_int32), ("dtype", c_int32)]


class Weight(Structure):
    _fields_ = [
        ("code", c_int32),
        ("group", c_int32),
        ("scale", c_int32),
        ("minimum", c_int32),
        ("layout", c_int32),
        ("n", c_int32),
        ("k", c_int32),
        ("data", c_void_p),
        ("bytes", c_uint64),
    ]


class State(Structure):
    _fields_ = [
        ("kind", c_int32),
        ("heads", c_int32),
        ("k_dim", c_int32),
        ("v_dim", c_int32),
        ("window", c_int32),
        ("group", c_int32),
    ]


class Program(Structure):
    _fields_ = [
        ("context", c_int32),
        ("vocab", c_int32),
        ("sampleable", c_int32),
        ("output", c_int32),
        ("value_count", c_int32),
        ("weight_count", c_int32),
        ("state_count", c_int32),
        ("instruction_count", c_int32),
        ("values", POINTER(Value)),
        ("weights", POINTER(Weight)),
        ("states", POINTER(State)),
        ("instructions", POINTER(Instruction)),
    ]


class Limits(Structure):
    _fields_ = [
        ("max_tokens", c_int32),
        ("max_rows", c_int32),
        ("max_sequences", c_int32),
        ("context", c_int32),
        ("kv_dtype", c_int32),
        ("group_count", c_int32),
        ("blocks", POINTER(c_int32)),
        ("threads", c_int32),
        ("trace", c_int32),
    ]


class Sampler(Structure):
    _fields_ = [
        ("sample", c_int32),
        ("temperature", c_float),
        ("top_k", c_int32),
        ("top_p", c_float),
        ("min_p", c_float),
        ("repetition_penalty", c_float),
        ("presence_penalty", c_float),
        ("frequency_penalty", c_float),
        ("top_logprobs", c_int32),
        ("seed", c_uint64),
        ("counter", c_uint64),
        ("history", c_void_p),
        ("history_length", c_int32),
        ("prompt_length", c_int32),
        ("bias_ids", c_void_p),
        ("bias_values", c_void_p),
        ("bias_count", c_int32),
        ("allowed", c_void_p),
        ("target", c_int32),
    ]


class Sample(Structure):
    _fields_ = [
        ("id", c_int32),
        ("status", c_int32),
        ("logprob", c_float),
        ("top_count", c_int32),
        ("top_ids", c_int32 * MAX_LOGPROBS),
        ("top_logprobs", c_float * MAX_LOGPROBS),
    ]


class Batch(Structure):
    _fields_ = [
        ("tokens_count", c_int32),
        ("rows_count", c_int32),
        ("sequence_count", c_int32),
        ("block_stride", c_int32),
        ("tokens", c_void_p),
        ("positions", c_void_p),
        ("sequences", c_void_p),
        ("rows", c_void_p),
        ("block_tables", c_void_p),
        ("samplers", c_void_p),
        ("samples", c_void_p),
        ("logits", c_void_p),
    ]


MAX_PHASE_INSTRUCTIONS = 8


class Phase(Structure):
    _fields_ = [
        ("work", c_char_p),
        ("barrier", c_int32),
        ("instruction_count", c_int32),
        ("instructions", c_int32 * MAX_PHASE_INSTRUCTIONS),
    ]


class ProfileStep(Structure):
    _fields_ = [
        ("tokens", c_int32),
        ("rows", c_int32),
        ("threads", c_int32),
        ("phases", c_int32),
        ("begin", c_int64),
        ("end", c_int64),
    ]


BPE_PROBES = 64


class Bpe(Structure):
    _fields_ = [
        ("unit_count", c_int32),
        ("merge_rows", c_uint32),
        ("word_rows", c_uint32),
        ("units", c_void_p),
        ("merges", c_void_p),
        ("words", c_void_p),
        ("offsets", c_void_p),
        ("texts", c_void_p),
    ]


# name -> (result type, argument types); a result of c_uint32 is an edge_status
_FUNCTIONS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "edge_last_error": (c_char_p, ()),
    "edge_isa": (c_char_p, ()),
    "edge_default_threads": (c_int32, ()),
    "edge_measure_cores": (c_uint32, (c_int32, c_void_p)),
    "edge_block_size": (c_int32, ()),
    "edge_block_bytes": (c_uint32, (c_void_p, c_int32, c_void_p, c_int32)),
    "edge_load": (c_uint32, (c_void_p, c_void_p, c_void_p)),
    "edge_step": (c_uint32, (c_void_p, c_void_p)),
    "edge_copy_block": (c_uint32, (c_void_p, c_int32, c_int32, c_int32)),
    "edge_read_value": (c_uint32, (c_void_p, c_int32, c_void_p, c_uint64)),
    "edge_profile_start": (c_uint32, (c_void_p, c_int32)),
    "edge_profile_phases": (c_uint32, (c_void_p, c_int32, c_void_p, c_int32, c_void_p)),
    "edge_profile_read": (c_uint32, (c_void_p, c_int32, c_void_p, c_void_p, c_uint64)),
    "edge_measure": (c_uint32, (c_int32, c_int32, c_void_p)),
    "edge_free": (None, (c_void_p,)),
    "edge_bpe_merge": (
        c_uint32,
        (c_void_p, c_void_p, c_void_p, c_uint64, c_void_p, c_void_p, c_void_p),
    ),
}


def library_path() -> Path:
    """Where the native library is, or should be: ``EDGE_LLM_NATIVE``, else inside the package."""
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
    if version != ABI_VERSION:
        raise NativeError(
            f"{path} has ABI version {version}, expected {ABI_VERSION}",
            hint="the Python files and the native library are from different builds: reinstall",
        )
    for name, (result, arguments) in _FUNCTIONS.items():
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
    """How many of ``cpus`` logical CPUs have a core of their own: half of them, if arithmetic in as
    many threads takes each of them much longer than alone, else all. Takes about 3 ms.

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
