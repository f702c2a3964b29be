"""Programs whose weights memory does not hold."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edge_llm
from edge_llm.program.cost import expert_bytes, stored_bytes, weight_bytes
from edge_llm.program.file import Program
from edge_llm.runner.backends import shortage as module
from edge_llm.runner.backends import weights as copies
from edge_llm.runner.backends.shortage import Shortage, file_rate, missing_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="what is free is asked of Linux alone")


@pytest.fixture
def mixture(tiny_program: Callable[..., Path]) -> Path:
    return tiny_program("8da4w", "qwen3_moe")


def test_what_a_token_misses(mixture: Path, tiny_program: Callable[..., Path]) -> None:
    with Program.open(mixture) as program:
        plan = program.plan
    stacks, chosen = expert_bytes(plan)
    always = weight_bytes(plan) - chosen
    assert 0 < chosen < stacks < stored_bytes(plan)
    assert missing_bytes(plan, always + stacks) == 0
    assert missing_bytes(plan, always + stacks // 2) == pytest.approx(chosen / 2, abs=1)
    assert missing_bytes(plan, always) == chosen
    assert missing_bytes(plan, always - 1) == weight_bytes(plan)
    with Program.open(tiny_program("8da4w")) as program:  # no experts: all of it, every time
        dense = program.plan
    assert missing_bytes(dense, stored_bytes(dense) - 1) == weight_bytes(dense)


def mapping_flags(path: Path) -> set[str]:
    """Return the flags of this process's mapping of a file, as the kernel names them."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.endswith(str(path)):
            inside = True
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError(f"{path} is not mapped")


@linux
def test_it_is_said_and_changes_no_answer(
    mixture: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = list(range(5, 75))
    with edge_llm.load(mixture) as llm:
        expected = llm.logits(prompt)
    assert caplog.messages == []
    monkeypatch.setattr(module, "available_memory", lambda: 10_000)
    with caplog.at_level(logging.WARNING), edge_llm.load(mixture) as llm:
        got = llm.logits(prompt)
        flags = mapping_flags(mixture)
    assert got.tobytes() == expected.tobytes()
    assert "nh" in flags or "hg" not in flags  # pages of the usual size
    (message,) = caplog.messages
    assert message.startswith(f"{mixture.name}: the weights take 0.0 GB and 0.0 GB of memory")
    assert "GB/s (measured just now)" in message


@linux
def test_a_copy_in_memory_lacks_nothing(
    mixture: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 10_000)  # once it is copied
    with caplog.at_level(logging.WARNING), edge_llm.load(mixture, huge_pages="copy"):
        assert caplog.messages == []
    monkeypatch.setattr(copies, "available_memory", lambda: 10_000)  # for a copy, too
    with caplog.at_level(logging.WARNING), edge_llm.load(mixture, huge_pages="copy"):
        assert len(caplog.messages) == 1


def test_the_warning_names_what_was_measured() -> None:
    assert str(Shortage(17_200_000_000, 11_300_000_000, 620_000_000, 2.5e9)) == (
        "the weights take 17.2 GB and 11.3 GB of memory are free: those that do not fit are read "
        "from the file again and again, some 620 MB a token, at 2.50 GB/s (measured just now): "
        "0.25 seconds more for each token"
    )
    assert str(Shortage(2_000_000_000, 1_000_000_000, 7_000_000, 0.0)).endswith("some 7 MB a token")


@linux
def test_a_file_is_read_from_its_disk(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(3 * 2**20))
    assert file_rate(path) > 0
    assert file_rate(tmp_path / "absent") == 0
