"""The default number of threads, from made-up machines' files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edge_llm import native
from edge_llm.errors import NativeError

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parents[2] / "runner/native"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's files")

Count = Callable[[Mapping[str, object], int], tuple[int, int]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    out = tmp_path_factory.mktemp("topology") / "print_cores"
    sources = [HERE / "print_cores.cpp", NATIVE / "core/topology.cpp"]
    subprocess.run([compiler, "-std=c++17", f"-I{NATIVE}", "-o", out, *sources], check=True)
    return out


@pytest.fixture
def count(program: Path, tmp_path: Path, sure: list[bool]) -> Count:
    """``count(files, n)``: (strong cores, quota) of a machine with ``files`` and n CPUs."""

    def run(files: Mapping[str, object], cpus: int) -> tuple[int, int]:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n", encoding="ascii")
        command = [program, tmp_path, *map(str, range(cpus))]
        words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        sure[:] = [words[1] == "1"]
        return int(words[0]), int(words[2])

    return run


@pytest.fixture
def sure() -> list[bool]:
    """Tell whether the files of the last machine that was counted leave no doubt."""
    return []


def cpu(number: int, **facts: object) -> dict[str, object]:
    folder = f"sys/devices/system/cpu/cpu{number}"
    return {f"{folder}/{name.replace('__', '/')}": value for name, value in facts.items()}


def core(number: int, core_id: int, package: int = 0) -> dict[str, object]:
    return cpu(number, topology__core_id=core_id, topology__physical_package_id=package)


def test_without_files_every_cpu_counts(count: Count, sure: list[bool]) -> None:
    assert count({}, 3) == (3, 0)
    assert sure == [False]


def test_hyper_threads_count_once_and_packages_apart(count: Count, sure: list[bool]) -> None:
    files = core(0, 0) | core(1, 0) | core(2, 1) | core(3, 0, package=1)
    assert count(files, 4) == (3, 0)
    assert sure == [True]
    assert count(files, 5) == (4, 0)
    assert sure == [False]


def test_weak_cores_do_not_count(count: Count) -> None:
    arm = {
        k: v for i, c in enumerate((1024, 800, 800, 300)) for k, v in cpu(i, cpu_capacity=c).items()
    }
    assert count(arm, 4) == (3, 0)


def test_a_process_on_weak_cores_alone_uses_them(count: Count) -> None:
    assert count({"sys/devices/cpu_atom/cpus": "0-1,5"}, 2) == (2, 0)


def test_intel_s_efficient_cores_do_not_count(count: Count) -> None:
    assert count({"sys/devices/cpu_atom/cpus": "2-3,5"}, 6) == (3, 0)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 0),
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/c",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            0,
        ),
    ],
)
def test_the_tightest_control_group_counts(
    count: Count, files: dict[str, object], quota: int
) -> None:
    assert count(files, 1) == (1, quota)


def test_affinity_is_respected() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from edge_llm import native; print(native.default_threads())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "1"


def test_cores_are_measured_where_the_system_is_not_sure() -> None:
    cpus = len(os.sched_getaffinity(0))
    measured = native.measure_cores(cpus)
    assert measured in (cpus, (cpus + 1) // 2)
    assert native.measure_cores(1) == 1
    assert 1 <= native.default_threads() <= cpus
    for wrong in (0, 1025):
        with pytest.raises(NativeError, match=f"cpus is {wrong}"):
            native.measure_cores(wrong)
