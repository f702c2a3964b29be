"""``edge-llm eval --adapter``, beside a program into which the same adapter was merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft", reason="needs the peft package")
from peft_adapters import write_adapter

from edge_llm.catalogue import evaluations_of
from edge_llm.cli.main import main
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.program.file import Program

TINY_TEXT = "The quick brown fox jumps over the lazy dog. " * 20


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "lora").folder


@pytest.fixture
def programs(
    tiny_checkpoint: Callable[..., Path], adapter: Path, tmp_path: Path
) -> tuple[str, str]:
    """A program in float32, and one with the adapter merged."""

    def made(name: str, *adapters: Path) -> str:
        recipe = Recipe(
            model=str(tiny_checkpoint("llama")),
            scheme="fp32",
            verify=False,
            adapters=[{"path": str(path)} for path in adapters],
        )
        return str(export(recipe, output=tmp_path / f"{name}.edge"))

    return made("plain"), made("merged", adapter)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TINY_TEXT, encoding="utf-8")
    return str(path)


def found(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert main(["eval", *command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_figures_of_a_text_are_those_of_a_merged_program(
    programs: tuple[str, str], adapter: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, merged = programs
    on_text = ["--text", text, "--window", "64"]
    bare = found(capsys, plain, *on_text)
    expected = found(capsys, merged, *on_text)
    got = found(capsys, plain, *on_text, "--adapter", str(adapter))
    assert got["adapter"].startswith("lora ")
    assert got["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-4)
    assert got["perplexity"] != pytest.approx(bare["perplexity"], rel=1e-2)

    compared = ["--reference", plain]
    expected = found(capsys, merged, *on_text, *compared)["reference"]
    got = found(capsys, plain, *on_text, *compared, "--adapter", f"mine={adapter}")["reference"]
    assert got["mean"]["value"] == pytest.approx(expected["mean"]["value"], rel=1e-3)
    assert got["mean"]["value"] > 0.01  # the reference has no adapter
    nothing = found(
        capsys, plain, *on_text, "--reference", merged, "--adapter", str(adapter)
    )["reference"]  # fmt: skip
    assert nothing["mean"]["value"] < 1e-6


def test_choices_of_a_task_are_those_of_a_merged_program(
    programs: tuple[str, str], adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, merged = programs
    questions = tmp_path / "sums.jsonl"
    rows = [
        {"question": f"{n} + 1?", "choices": ["1", "2", "3", "4"], "answer": n % 4}
        for n in range(24)
    ]
    questions.write_text("\n".join(map(json.dumps, rows)))
    task = ["--task", "mmlu", "--data", str(questions), "--examples", "0"]

    def scores(program: str, *more: str) -> list[float]:
        """Return the log-probability of each letter of each question."""
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        found(capsys, program, *task, "--output", str(file), *more)
        records = [json.loads(line) for line in file.read_text().splitlines()[1:]]
        said = [record["answer"] for record in sorted(records, key=lambda record: record["id"])]
        return [float(letter.split()[1]) for answer in said for letter in answer.split(", ")]

    with_it = scores(plain, "--adapter", str(adapter))
    assert len(with_it) == 4 * len(rows)
    assert with_it == pytest.approx(scores(merged), abs=1e-3)
    assert with_it != pytest.approx(scores(plain), abs=1e-1)


def test_figures_with_an_adapter_are_kept_apart(
    programs: tuple[str, str],
    adapter: Path,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, _ = programs
    journal = tmp_path / "found.jsonl"
    command = ["--text", text, "--window", "64", "--output", str(journal)]
    found(capsys, plain, *command)
    assert main(["eval", plain, *command, "--adapter", str(adapter)]) != 0
    assert "has another evaluation" in capsys.readouterr().err
    assert main(["eval", plain, *command[:-2], "--adapter", str(adapter)]) == 0
    assert "with the adapter lora " in capsys.readouterr().err
    with Program.open(Path(plain)) as program:
        kept = evaluations_of(program.digest)
    adapters = {record["what"].get("adapter", "none").partition(" ")[0] for record in kept}
    assert (len(kept), adapters) == (2, {"none", "lora"})
    assert main(["inspect", plain]) == 0
    assert "adapter lora " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "TEXT", "--adapter", "A", "--adapter", "B=A"], "expected one"),
        (["--text", "TEXT", "--adapter", "A", "--html", "x.html"], "--html shows errors by layer"),
        (["--compare", "PLAIN", "--adapter", "A"], "--adapter is given, and nothing is evaluated"),
        (["--text", "TEXT", "--adapter", "absent"], "absent"),
    ],
)
def test_what_cannot_be_done_is_said(
    options: list[str],
    message: str,
    programs: tuple[str, str],
    adapter: Path,
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"TEXT": text, "A": str(adapter), "B=A": f"b={adapter}", "PLAIN": programs[0]}
    assert main(["eval", programs[0], *(names.get(option, option) for option in options)]) != 0
    assert message in capsys.readouterr().err
