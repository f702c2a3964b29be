"""Gemma 4 against transformers, from a tiny checkpoint to a program, and in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import (
    check_at_once,
    check_bits,
    check_fp32_program,
    check_interleaved,
    check_quantized_program,
    check_token_by_token,
    prompt,
)
from stored_tensors import tensor_of

from edge_llm.export.pipeline import export
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.program import cost
from edge_llm.program.file import Program
from edge_llm.program.plan import layer_of
from edge_llm.runner.backends.registry import block_tables, open_executor
from edge_llm.runner.executor import Batch, Limits, Segment, StepResult

LARGE: dict[str, Any] = {
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "attention_k_eq_v": True,
    "per_layer_config": {
        str(layer): {"head_dim": 24, "num_key_value_heads": 1} for layer in (1, 3, 5, 6)
    },
}
EXPERTS: dict[str, Any] = {
    "enable_moe_block": True,
    "num_experts": 12,
    "top_k_experts": 3,
    "moe_intermediate_size": 32,
}
CASES: dict[str, dict[str, Any]] = {
    "small": {},
    "narrow": {"use_double_wide_mlp": False, "final_logit_softcapping": None},
    "untied": {"tie_word_embeddings": False, "rms_norm_eps": 1e-2},
    "large": LARGE,
    "experts": LARGE | EXPERTS,
    "all": EXPERTS | {"attention_k_eq_v": True},
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("gemma4_text", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["small", "large", "experts"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["small", "large", "all"], indirect=True)
def test_tokens_depend_on_those_before_alone(folder: Path, tmp_path: Path) -> None:
    check_bits(folder, "8da4w", tmp_path / "x.edge")


def logits_of(program: Program, *steps: tuple[Segment, ...]) -> list[StepResult]:
    """Run steps of up to two sequences, with two threads, and return what each gave."""
    blocks = 4
    executor = open_executor(
        program,
        Limits(
            max_tokens=512,
            max_rows=512,
            max_sequences=2,
            blocks=(2 * blocks,) * len(program.plan.groups),
            kv_dtype=program.documents.model.kv_dtype,
            threads=2,
        ),
    )
    tables = block_tables(executor.limits.blocks, 2)
    try:
        return [
            executor.step(Batch.of(*segments, block_tables=tables, want_logits=True))
            for segments in steps
        ]
    finally:
        executor.close()


@pytest.mark.parametrize("folder", ["small", "experts", "all"], indirect=True)
def test_rows_that_nobody_wants_change_nothing(folder: Path, tmp_path: Path) -> None:
    """Layers that read the keys and values of others compute the wanted rows alone."""
    a, b = prompt(200, 5).numpy(), prompt(150, 6).numpy()
    recipe = load_recipe("8da4w", ["verify=false", "context=256"], model=str(folder))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        (every,) = logits_of(program, (Segment(a, [None] * 200), Segment(b, [None] * 150, 0, 1)))
        some = logits_of(
            program,
            (Segment(a[:90]), Segment(b[:33], [None] * 2, 0, 1)),
            (Segment(a[90:150], [None], 90), Segment(b[33:34], (), 33, 1)),
            (Segment(b[34:150], [None] * 5, 34, 1), Segment(a[150:], [None] * 9, 150, 0, 20)),
        )
    assert every.logits is not None
    wanted = [[200 + 31, 200 + 32], [149], [*range(345, 350), *range(191, 200)]]
    assert some[0].logits is not None
    for step, rows in zip(some, wanted, strict=True):
        assert step.logits is not None
        np.testing.assert_array_equal(step.logits, every.logits[rows])


def test_prompts_skip_layers_that_write_nothing(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = load_recipe("8da4w", ["verify=false"], model=str(tiny_checkpoint("gemma4_text")))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        plan = program.plan
    rows = {
        layer: {
            plan.values[op.outputs[0]].rows
            for op in plan.instructions
            if layer_of(plan, op) == layer
        }
        for layer in range(7)
    }
    assert [rows[layer] for layer in range(4)] == [{"T"}] * 4
    assert all("R" in rows[layer] for layer in (4, 5, 6))
    readers = [op for op in plan.instructions if op.op == "attend"]
    assert [plan.states[op.state].name.split(".")[2] for op in readers] == ["2", "3", "3"]
    assert len(plan.states) == 4  # what layers share costs no memory
    short, long = (cost.prefill_operations(plan, tokens) for tokens in (1, 101))
    whole = cost.prefill_operations(plan, 101, rows=101)
    assert long < 100 * short + short < whole


@pytest.mark.parametrize("folder", ["small"], indirect=True)
def test_hidden_states_are_those_of_every_token(folder: Path, tmp_path: Path) -> None:
    tokens = prompt(70, 8).numpy()
    recipe = load_recipe("fp32", ["verify=false", "context=256"], model=str(folder))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        (whole,) = logits_of(program, (Segment(tokens, [None], 0, 0, 70),))
        parts = logits_of(
            program, (Segment(tokens[:40], (), 0, 0, 40),), (Segment(tokens[40:], (), 40, 0, 30),)
        )
    assert whole.hidden is not None
    np.testing.assert_array_equal(np.concatenate([part.hidden for part in parts]), whole.hidden)
    head = tensor_of(open_checkpoint(folder), "model.embed_tokens.weight").numpy()
    logits = 2.5 * np.tanh(whole.hidden @ head.T / 2.5)
    np.testing.assert_allclose(logits[-1:], whole.logits, rtol=0, atol=1e-4)
