"""The core on aarch64, emulated: the native tests as they are, and program files to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bits import isas

import edge_llm

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GENERATE = Path(__file__).with_name("generate.py")
# qemu's processors, and the best instruction set of each. What a processor lacks is an illegal
# instruction there, so these also show that nothing is used unasked.
PROCESSORS = {"cortex-a53": "neon", "cortex-a76": "neon_dotprod", "max": "neon_i8mm"}
BETTER = {"cortex-a53": "neon_dotprod", "cortex-a76": "neon_i8mm"}
# The first two look at the memory of the process, which is the emulator's here; for the third the
# emulator keeps a table of pages as large as the machine's memory; the fourth starts Python anew,
# which only the emulator can; in the last NumPy's own product warns on the largest processor.
NOT_EMULATED = (
    "tests/runner/native/test_refusals.py::test_untouched_blocks_cost_no_memory",
    "tests/runner/native/test_memory_use.py::test_keys_and_values_may_lie_in_huge_pages",
    "tests/runner/native/test_refusals.py::test_blocks_beyond_the_address_space_are_a_capacity_error",
    "tests/runner/native/test_topology.py::test_affinity_is_respected",
    "tests/runner/native/test_hadamard.py::test_the_matrix_of_order_28_is_that_of_the_checkpoints",
)


@pytest.mark.parametrize("cpu", PROCESSORS)
def test_native_tests_pass(aarch64: Any, cpu: str) -> None:
    done = aarch64.run(
        *("-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"),
        *(f"--deselect={name}" for name in NOT_EMULATED),
        # The whole suite's fixtures need PyTorch.
        *("--confcutdir=tests/runner/native", "tests/runner/native"),
        cpu=cpu,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("cpu", PROCESSORS)
def test_processor_chooses_its_kernels(aarch64: Any, cpu: str) -> None:
    command = "from edge_llm import native; print(native.isa())"
    assert aarch64.run("-c", command, cpu=cpu).stdout.strip() == PROCESSORS[cpu]
    if cpu in BETTER:
        refused = aarch64.run("-c", command, cpu=cpu, environment={"EDGE_LLM_ISA": BETTER[cpu]})
        assert f"'{BETTER[cpu]}', which this processor does not support" in refused.stderr


@pytest.mark.parametrize(
    ("family", "scheme", "kv"),
    [("llama", "8da4w", "f16"), ("qwen3", "8da8w", "i8"), ("phi3", "fp32", "f32")],
)
def test_program_gives_the_same_bits(
    aarch64: Any,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    family: str,
    scheme: str,
    kv: str,
) -> None:
    recipe = edge_llm.Recipe(
        model=str(tiny_checkpoint(family)), scheme=scheme, kv_dtype=kv, gate=None, verify=False
    )
    program = edge_llm.export(recipe, output=tmp_path / "tiny.edge")
    here = subprocess.run(
        [sys.executable, str(GENERATE), str(program), *isas()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert here.returncode == 0, here.stderr
    results = [json.loads(here.stdout)]
    for cpu, best in PROCESSORS.items():
        there = aarch64.run(str(GENERATE), str(program), "scalar", best, cpu=cpu)
        assert there.returncode == 0, there.stderr
        results.append(json.loads(there.stdout))
    expected = results[0]["scalar"]
    assert all(len(reply) > 0 for reply in expected["replies"])
    for result in results:
        for isa, found in result.items():
            assert found == expected, isa


QUANTIZE = """
import hashlib
import numpy as np
from edge_llm.export.weights.quantize import quantize
from edge_llm.program.formats import WEIGHT_FORMATS
rows = np.random.default_rng(3).standard_normal((8, 384)).astype(np.float32)
for name in ("i4g32", "i4g64", "i4g128", "i8"):
    made = quantize(rows, WEIGHT_FORMATS[name], scale_rule="hqq")
    data = made.weight.codes.tobytes() + made.weight.scale.tobytes()
    print(name, hashlib.sha256(data).hexdigest(), made.signal.hex(), made.noise.hex())
"""


def test_weights_get_the_same_integers(aarch64: Any) -> None:
    here = subprocess.run(
        [sys.executable, "-c", QUANTIZE], capture_output=True, text=True, check=True
    )
    for cpu in PROCESSORS:
        there = aarch64.run("-c", QUANTIZE, cpu=cpu)
        assert there.stdout == here.stdout, there.stderr
