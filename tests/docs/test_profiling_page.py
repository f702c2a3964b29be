"""docs/profiling.md says what `edge-llm plan` says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_llm.catalogue.devices import find_device
from edge_llm.cli.prediction import Wanted, plan_model
from edge_llm.program.predict import EFFICIENCIES, Rates, prefill_seconds
from edge_llm.runner.config import DEFAULT_STEP_TOKENS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "profiling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", ["llama3.2-1b", "qwen3-0.6b", "phi-4-mini"])
def test_prefill_on_phones(model: str) -> None:
    plan = plan_model(Wanted(model, quant="8da4w", context=8192)).plan
    cells = []
    for name in ("snapdragon-8-elite", "tensor-g4"):
        device = find_device(name)
        rates = Rates(
            device.isa, device.bytes_per_second, device.int8_per_second, device.float_per_second
        )
        assert device.published is not None
        seconds = prefill_seconds(plan, rates, 512, step_tokens=DEFAULT_STEP_TOKENS)
        cells += [512 / seconds, device.published.prefill[model]]
    assert f"| {model} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |" in PAGE


@pytest.mark.parametrize("isa", ["avx2", "avx512vnni", "avxvnni"])
def test_efficiencies(isa: str) -> None:
    (row,) = re.findall(rf"^\| {isa} \| (.*?) us \|", PAGE, re.MULTILINE)
    use = EFFICIENCIES[isa]
    assert [float(cell) for cell in row.split(" | ")] == [
        use.read,
        use.multiply,
        use.attend,
        pytest.approx(1e6 * use.layer),
    ]
