"""``edge-llm plan``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.cli.main import main
from edge_llm.program.file import Program

PI = ("--device", "raspberry-pi-5")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))


def plan(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    assert main(["plan", *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["plan", *options]) == 1
    return capsys.readouterr().err


def test_a_model_that_was_not_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    model = plan(capsys, "-m", "llama3.2-1b", "--quant", "8da4w", *PI)["model"]
    # 973,078,528 parameters in groups of 32 at 4.5 bits, 16 v_proj of them at 8, the table at 6.5,
    # and constants of rows.
    values = 16 * 512 * 2048
    expected = (973_078_528 - values) * 4.5 / 8 + values + 262_668_288 * 6.5 / 8
    assert model["weight_bytes"] == pytest.approx(expected, rel=0.01)
    assert model["weight_bytes"] < model["file_bytes"] < 1.02 * model["weight_bytes"]
    assert not model["file_exact"]
    assert model["kv_bytes_per_token"] == 2 * 16 * 8 * 64 * 2
    assert model["kv_bytes"] == 8192 * model["kv_bytes_per_token"]
    assert model["memory_bytes"] == model["file_bytes"] + model["kv_bytes"] + 60_000_000


def test_recipe_options(capsys: pytest.CaptureFixture[str]) -> None:
    usual = plan(capsys, "-m", "qwen3-0.6b", *PI)
    coarse = plan(capsys, "-m", "qwen3-0.6b", "--group-size", "128", *PI)
    assert coarse["model"]["weight_bytes"] < usual["model"]["weight_bytes"]
    narrow = plan(capsys, "-m", "qwen3-0.6b", "--kv-dtype", "i8", "--context", "2048", *PI)
    row = narrow["model"]["kv_bytes_per_token"]
    assert row == 2 * 28 * 8 * (128 + 4)
    assert narrow["model"]["kv_bytes"] == 2048 * row
    assert list(narrow["devices"][0]["decode"]) == ["0", "1024", "2047"]
    half = plan(capsys, "-m", "qwen3-0.6b", "--quant", "fp16", *PI)
    assert half["devices"][0]["decode"]["0"] < usual["devices"][0]["decode"]["0"]


def test_all_devices_beside_what_the_paper_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", "meta-llama/Llama-3.2-1B-Instruct", "--device", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line.split() for line in lines if line.startswith("DEVICE"))
    assert "PUBLISHED" in head
    rows = {line.split()[0]: line for line in lines if line}
    assert "2810" in rows["snapdragon-8-elite"]
    assert "530" in rows["tensor-g4"]
    assert "here" in rows


def test_a_program_is_exact(
    tiny_program: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_program("8da4w")
    model = plan(capsys, "-m", str(path), *PI)["model"]
    with Program.open(path) as program:
        assert (model["file_bytes"], model["file_exact"]) == (program.file_bytes, True)
    shorter = plan(capsys, "-m", str(path), "--context", "100", *PI)["model"]
    assert shorter["kv_bytes"] == 100 * shorter["kv_bytes_per_token"]
    assert "is a program" in refused(capsys, "-m", str(path), "--quant", "fp32", *PI)
    assert "expected 1 to" in refused(capsys, "-m", str(path), "--context", "9999", *PI)


def test_a_checkpoint(
    tiny_checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_checkpoint("qwen2")
    model = plan(capsys, "-m", str(folder), "--context", "64", *PI)["model"]
    assert (model["name"], model["context"]) == (folder.name, 64)
    assert "the model's own is 256" in refused(capsys, "-m", str(folder), "--context", "257", *PI)


def test_a_checkpoint_that_keeps_its_own_integers(
    tiny_checkpoint: Callable[..., Path],
    make_gguf: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An export keeps them, so that they are what is planned with."""
    source, program = str(make_gguf(tiny_checkpoint("llama"), "Q8_0")), tmp_path / "x.edge"
    assert main(["export", "--model", source, "--output", str(program), "--set", "gate=off"]) == 0
    capsys.readouterr()
    predicted, exact = (
        plan(capsys, "-m", name, "--context", "64", *PI)["model"] for name in (source, str(program))
    )
    assert predicted["read_per_token"] == exact["read_per_token"]
    floats = plan(capsys, "-m", str(tiny_checkpoint("llama")), "--context", "64", *PI)["model"]
    assert floats["read_per_token"] < predicted["read_per_token"]


def test_names_that_nobody_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model is called" in refused(capsys, "-m", "lama3.2-1b", *PI)
    assert "no device is called" in refused(capsys, "-m", "llama3.2-1b", "--device", "pi")


def test_catalogue_names_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from edge_llm.cli.main import main; "
        "sys.exit(main(['plan', '-m', 'smollm2-135m', '--device', 'apple-m1']))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_model_for_vectors_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """A text is one step, whose activations count, and nothing is generated."""
    assert main(["plan", "embeddinggemma", "--device", "raspberry-pi-5", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["devices"][0]["decode"] == {}
    assert document["model"]["rest_bytes"] > 60_000_000 + 2048 * 4 * 768
    assert main(["plan", "embeddinggemma", "--device", "raspberry-pi-5"]) == 0
    shown = capfd.readouterr().out
    assert "DECODE" not in shown
    assert "each token" not in shown
