from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edge_llm
from edge_llm.errors import ProgramError
from edge_llm.program.file import Program
from edge_llm.program.tensors import Golden
from edge_llm.runner.evaluation.golden import check_golden


@pytest.fixture(scope="module")
def verified(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    recipe = edge_llm.Recipe(model=str(tiny_checkpoint("llama")), scheme="8da4w", gate=None)
    return edge_llm.export(recipe, output=tmp_path_factory.mktemp("golden") / "tiny.edge")


def test_a_program_computes_what_it_computed_at_export(verified: Path) -> None:
    with Program.open(verified) as program:
        assert program.golden is not None
        for threads in (1, 2):
            check_golden(program, threads=threads)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("top_ids", "likeliest ids"),
        ("top_logits", "logits differ"),
        ("next", "differs from token 0"),
    ],
)
def test_any_difference_is_named(
    verified: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    with Program.open(verified) as program:
        assert program.golden is not None
        changed = np.array(getattr(program.golden, name))
        changed[1, 0] = changed[1, 0] + 1 if name == "top_logits" else (changed[1, 0] + 1) % 256
        golden = dataclasses.replace(program.golden, **{name: changed})
        assert isinstance(golden, Golden)
        monkeypatch.setattr(Program, "golden", golden)
        with pytest.raises(ProgramError, match=f"prompt 1: .*{message}"):
            check_golden(program)


def test_a_record_that_goes_on_past_the_context_is_refused(
    verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with edge_llm.load(verified, threads=1) as llm:
        golden = llm.program.golden
        assert golden is not None
        prompt = golden.tokens[0][golden.tokens[0] >= 0]
        greedy = edge_llm.SamplingParams(temperature=0.0, ignore_eos=True)
        whole = llm.generate(prompt, greedy).token_ids
    following = np.full((len(golden.tokens), len(whole) + 1), -1, np.int32)
    following[0] = [*whole, 0]
    with Program.open(verified) as program:
        monkeypatch.setattr(Program, "golden", dataclasses.replace(golden, next=following))
        with pytest.raises(ProgramError, match=f"prompt 0: .*differs from token {len(whole)}"):
            check_golden(program)


def test_a_program_without_a_record_passes(tiny_program: Callable[..., Path]) -> None:
    with Program.open(tiny_program()) as program:
        assert program.golden is None
        check_golden(program)
