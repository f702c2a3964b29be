"""Runs one Python program that nobody has read, with almost nothing allowed: the child process of
`sandbox`, started as a script of its own, which imports nothing of ours.

The program comes on standard input behind a line of limits (JSON); what became of it is written as
JSON to the file descriptor that the first argument names. Before it runs, limits of the kernel
bound its time and memory, and a filter lets it make the system calls that computing needs and no
others: it reads files, and can neither write, delete or rename any, nor start processes, send
signals or reach a network.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys
from typing import Any

# Numbers of include/uapi/asm: (x86-64, aarch64), None where an architecture has no such call.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "poll": (7, None),
    "ppoll": (271, 73),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "ioctl": (16, 29),
    "pread64": (17, 67),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "select": (23, None),
    "pselect6": (270, 72),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "uname": (63, 160),
    "fcntl": (72, 25),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "sigaltstack": (131, 132),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "getdents64": (217, 61),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}
# To open files for reading alone: (call, index of the argument with the flags).
_OPENS: dict[str, tuple[int | None, int | None, int]] = {
    "open": (2, None, 1),
    "openat": (257, 56, 2),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # our column, AUDIT_ARCH_*
_READING = os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | 0o100000

_LOAD, _EQUAL, _ANY, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF: ld, jeq, jset, ret
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # with EPERM
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER, _DUMPABLE = 38, 22, 2, 4


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def allowed_calls(machine: str) -> bytes:
    """Return the filter for the kernel, as BPF instructions; the machine as `platform` names it.

    Raises:
        OSError: no calls of such a machine are known.
    """
    if machine not in _MACHINES:
        raise OSError(f"no system calls are known of a {machine}")
    column, audit = _MACHINES[machine]
    code = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, _NUMBER), (_ANY, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    for *numbers, flags in _OPENS.values():
        if (number := numbers[column]) is not None:
            code += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _ARGUMENTS + 8 * flags)]
            code += [(_ANY, 0, 1, ~_READING & 0xFFFFFFFF), (_RETURN, 0, 0, _REFUSE)]
            code += [(_RETURN, 0, 0, _ALLOW)]
    for call in _CALLS.values():
        if (number := call[column]) is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    code += [(_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def confine(limits: dict[str, int]) -> None:
    """Give up for good what the program has no need of.

    Raises:
        OSError: this kernel has no such filters.
    """
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    code = allowed_calls(platform.machine())
    program = _Program(len(code) // 8, code)
    for option in (
        (_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (_DUMPABLE, 0, 0, 0, 0),
        (_SECCOMP, _FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*(ctypes.c_ulong(v) if isinstance(v, int) else v for v in option)):
            raise OSError(ctypes.get_errno(), "the kernel refuses to filter system calls")


def main() -> None:
    """Confine this process, run the program, and say what became of it."""
    report = int(sys.argv[1])
    limits = json.loads(sys.stdin.buffer.readline())
    source = sys.stdin.buffer.read().decode()
    try:
        confine(limits)
    except (OSError, ValueError) as error:
        _tell(report, {"confined": False, "reason": str(error)})
        return
    _tell(report, {"confined": True})
    _tell(report, {"reason": _run(source)})


def _run(source: str) -> str | None:
    """Return what went wrong, None if nothing did."""
    try:
        exec(compile(source, "<answer>", "exec"), {"__name__": "answer"})
    except MemoryError:
        return "it needs more memory than it may have"
    except BaseException as error:  # SystemExit too: the checks behind it did not run
        return f"{type(error).__name__}: {error}"[:500]
    return None


def _tell(report: int, document: dict[str, Any]) -> None:
    os.write(report, json.dumps(document).encode() + b"\n")


if __name__ == "__main__":
    main()
