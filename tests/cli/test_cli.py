"""The verbs, run in this process on a tiny program and an empty store."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.cli.main import main
from edge_llm.export import pipeline
from edge_llm.program.file import Program

TinyProgram = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store."""
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def program(store: Path, tiny_program: TinyProgram) -> Path:
    """A tiny program in the store, named `tiny-8da4w`."""
    path = store / "programs" / "tiny-8da4w.edge"
    path.parent.mkdir(parents=True)
    shutil.copy(tiny_program("8da4w"), path)
    return path


def json_of(capsys: pytest.CaptureFixture[str]) -> Any:
    """The one JSON document on stdout."""
    return json.loads(capsys.readouterr().out)


def test_run_prints_the_answer_alone(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--raw", "hello", "--temperature", "0", "--max-tokens", "8"]
    assert main(command) == 0  # the newest program of the store
    printed = capsys.readouterr()
    assert main([*command, "--model", str(program), "--json"]) == 0
    document = json_of(capsys)
    assert printed.out == document["text"] + "\n"
    assert "tokens/s" in printed.err
    assert len(document["token_ids"]) <= 8
    assert document["finish_reason"] in ("stop", "length")
    assert document["stats"]["prompt_tokens"] > 0


def test_an_answer_of_a_schema(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = '{"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}'
    (tmp_path / "schema.json").write_text(schema)
    for given in (schema, str(tmp_path / "schema.json")):
        for extra in ([], ["--raw"]):
            assert main(["run", "hello", "--schema", given, *extra]) == 0
            assert isinstance(json_of(capsys)["yes"], bool)


def test_a_raw_prompt_may_have_control_tokens(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = []
    for extra in (["--raw"], []):
        for text in ("", "<|im_start|>"):
            assert main(["run", f"{text}hello", "--max-tokens", "1", "--json", *extra]) == 0
            counts.append(json_of(capsys)["stats"]["prompt_tokens"])
    assert counts[1] == counts[0] + 1
    assert counts[3] > counts[2] + 1  # in a chat, what is typed is text


@pytest.mark.parametrize("typed", [["-"], ["hello", "--system", "\udcff"], ["\udcff"]])
def test_run_refuses_bytes_that_are_no_text(
    typed: list[str],
    program: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a\udcffb"))
    assert main(["run", *typed]) == 1
    assert capsys.readouterr().err.startswith("error: what was typed is not valid text")


def test_run_with_the_template_differs_from_raw(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = []
    for extra in ([], ["--raw"], ["--system", "be brief"]):
        assert main(["run", "hello", "--max-tokens", "2", "--json", "--seed", "1", *extra]) == 0
        counts.append(json_of(capsys)["stats"]["prompt_tokens"])
    chat, raw, system = counts
    assert raw < chat < system


def test_the_same_seed_gives_the_same_text(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for seed in ("7", "7", "8"):
        main(["run", "--raw", "hello", "--max-tokens", "30", "--seed", seed, "--json",
              "--temperature", "2"])  # fmt: skip
        answers.append(json_of(capsys)["token_ids"])
    assert answers[0] == answers[1] != answers[2]


def test_inspect(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "tiny-8da4w", "--plan", "--weights"]) == 0
    printed = capsys.readouterr().out
    for word in ("8da4w", "attention(", "i4g32", "llama", "context"):
        assert word in printed
    assert main(["inspect", "tiny-8da4w", "--json"]) == 0
    document = json_of(capsys)
    assert document["model"]["family"] == "llama"
    assert next(iter(document["plan"]["methods"].values()))["instructions"][0]["op"] == "embedding"


def test_dry_run_and_compare(
    program: Path, tiny_checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--model", str(tiny_checkpoint("llama")), "--quant", "8da8w", "--dry-run"]
    before = sorted(program.parent.iterdir())
    assert main([*command, "--compare", "tiny-8da4w"]) == 0
    printed = capsys.readouterr().out
    for word in ("plan: ", "each of layers 0-1", "KV cache: ", "the export needs", "RATIO"):
        assert word in printed
    assert main([*command, "--json", "--compare", str(program), "--kv-dtype", "f32"]) == 0
    document = json_of(capsys)
    assert document["kv"]["dtype"] == "f32"
    assert document["compare"]["totals"]["file_bytes"][1] == program.stat().st_size
    assert main([*command, "--json"]) == 0
    assert json_of(capsys)["compare"] is None
    assert sorted(program.parent.iterdir()) == before
    assert main([*command, "--compare", "nothing"]) == 1
    assert "nothing" in capsys.readouterr().err

    assert main(["inspect", "tiny-8da4w", "--compare", str(program)]) == 0
    assert "all weights have the same format" in capsys.readouterr().out
    assert main(["inspect", "tiny-8da4w", "--compare", str(program), "--json"]) == 0
    assert json_of(capsys)["totals"]["context"] == [256, 256]


@pytest.mark.parametrize("installed", [True, False])
def test_an_export_says_whether_it_was_compared(
    installed: bool,
    store: Path,
    tiny_checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pipeline, "has_extra", lambda name: installed)
    assert main(["export", "-m", str(tiny_checkpoint("llama")), "-q", "8da8w"]) == 0
    said = capsys.readouterr().err
    if installed:
        assert re.search(r"against eager PyTorch with the same numbers: KL \S+, top-1 \S+%;", said)
    else:
        assert "verify: not compared with eager PyTorch, which is not installed\n" in said


def test_a_program_is_compared_with_the_one_it_replaces(
    program: Path, tiny_checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old = program.stat().st_size
    command = ["export", "--model", str(tiny_checkpoint("llama")), "--quant", "8da8w"]
    command += ["--output", str(program), "--compare", str(program), "--set", "verify=false"]
    assert main([*command, "--json"]) == 0
    sizes = json_of(capsys)["compare"]["totals"]["file_bytes"]
    assert sizes == [program.stat().st_size, old]
    assert sizes[0] > sizes[1]


def test_bench(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "--model", str(program), "--prompt-tokens", "8,16", "--decode-tokens", "4",
               "--depth", "0,70", "--threads", "1,2", "--repeat", "1", "--json"]  # fmt: skip
    assert main(command) == 0
    document = json_of(capsys)
    assert set(document) == {"rows", "load_seconds", "peak_rss_bytes", "isa"}
    seen = {(row["kind"], row["tokens"], row["depth"], row["threads"]) for row in document["rows"]}
    assert seen == {
        (kind, tokens, depth, threads)
        for kind, tokens in (("prefill", 8), ("prefill", 16), ("decode", 4))
        for depth in (0, 70)
        for threads in (1, 2)
    }
    for row in document["rows"]:
        assert row["tokens_per_second"] > 0
        assert row["gb_per_second"] > 0
        assert row["gop_per_second"] > 0


def test_bench_beyond_the_context(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", str(program), "--depth", "255", "--repeat", "1"]) == 1
    assert "at most the context 256" in capsys.readouterr().err


def test_eval(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    command = ["eval", "--model", str(program), "--text", str(text), "--context", "64"]
    assert main([*command, "--windows", "3", "--json"]) == 0
    document = json_of(capsys)
    assert document["tokens"] == 3 * 63
    assert document["perplexity"] > 1
    assert main([*command, "--windows", "3", "--json", "--backend", "torch"]) == 0
    # Equal up to rounding that passes through int8; a wrong formula would be far off.
    assert json_of(capsys)["perplexity"] == pytest.approx(document["perplexity"], rel=0.05)
    assert main(["eval", "--model", str(program), "--text", str(text), "--context", "257"]) == 1
    assert "expected 2 to 256" in capsys.readouterr().err


def test_eval_against_a_reference(
    program: Path, tiny_program: TinyProgram, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    command = ["eval", "--model", str(program), "--text", str(text), "--window", "64"]
    command += ["--windows", "3", "--second-half", "--reference"]
    assert main([*command, str(tiny_program("fp32")), "--json"]) == 0
    document = json_of(capsys)
    assert document["tokens"] == 3 * 32
    found = document["reference"]
    assert 0 < found["median"]["value"] <= found["p99"]["value"] <= found["maximum"] < 1
    assert 0 < found["mean"]["value"] < 0.1
    assert found["mean"]["error"] > 0
    assert 0.5 < found["top1"]["value"] <= 1
    assert found["perplexity_ratio"]["value"] == pytest.approx(
        document["perplexity"] / found["reference_perplexity"]["value"]
    )
    assert main([*command, str(tiny_program("fp32"))]) == 0
    assert "KL divergence, 99th percentile" in capsys.readouterr().out


def test_eval_refuses_a_reference_of_another_vocabulary(
    program: Path, tiny_program: TinyProgram, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some text " * 20, encoding="utf-8")
    other = tiny_program("fp32", vocab_size=320)
    command = ["eval", "--model", str(program), "--text", str(text), "--reference", str(other)]
    assert main([*command, "--window", "16"]) == 1
    assert "has a vocabulary of 320 tokens" in capsys.readouterr().err


def test_verify(
    store: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "golden.edge"
    command = ["export", "--model", str(tiny_checkpoint("qwen3")), "--quant", "8da8w", "--json"]
    assert main([*command, "--set", "gate=off", "--output", str(path)]) == 0
    document = json_of(capsys)
    assert document["path"] == str(path)
    assert document["report"]["bits_per_weight"] > 8
    assert main(["verify", str(path), "--trace"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "ok\n"
    assert "bit for bit" in printed.err

    with Program.open(path) as opened:
        packed = opened.weight_data(opened.plan.weights[-1])[:64].tobytes()
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(packed) + 5] ^= 1
    path.write_bytes(damaged)
    assert main(["verify", str(path)]) == 1
    assert "damaged" in capsys.readouterr().err


def test_ls_and_rm(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second, third = (program.with_name(f"{name}.edge") for name in ("second", "third"))
    assert main(["ls", "--json"]) == 0
    document = json_of(capsys)
    assert document.keys() == {"programs"}
    (listed,) = document["programs"]
    assert (listed["name"], listed["scheme"], listed["default"]) == ("tiny-8da4w", "8da4w", True)
    assert listed["bytes"] == program.stat().st_size
    assert main(["ls", "--all", "--json"]) == 0
    assert "smollm2-135m" in [entry["name"] for entry in json_of(capsys)["models"]]
    for copy in (second, third):
        copy.write_bytes(program.read_bytes())
    assert main(["default", "second"]) == 0
    capsys.readouterr()
    assert main(["ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.endswith("default")] == ["second"]
    assert not any("smollm2" in line for line in lines)
    assert main(["rm", "tiny-8da4w", "-m", "second"]) == 0
    said = capsys.readouterr().err
    assert "second was the default" in said
    assert f"{2 * third.stat().st_size / 1e3:.1f} kB of the disk are free again" in said
    assert not program.exists()
    assert not second.exists()
    assert main(["rm", "thrid", "third", "tiny-8da4w"]) == 1
    said = capsys.readouterr().err
    assert "Did you mean third?" in said
    assert not third.exists()  # the others went


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run", "--model", "nothing.edge", "hi"], "nothing.edge"),
        (["export", "--model", "no-such-model"], "no-such-model"),
        (["export", "--model", "./no-such-folder"], "no-such-folder"),
        (["export", "--model", "smollm2-135m", "--set", "colour=red"], "colour"),
        (["export", "--model", "smollm2-135m", "--set", "colour"], "key=value"),
        (["export", "--model", "smollm2-135m", "--quant", "8da8w", "--group-size", "32"], "group"),
        (["export", "--model", "smollm2-135m", "--recipe", "none.yaml"], "none.yaml"),
        (["pull", "no-such-model"], "no-such-model"),
        (["serve", "--host", "0.0.0.0"], "API key"),
        (["inspect", "."], "folder"),
    ],
)
def test_errors_are_told(
    store: Path, capsys: pytest.CaptureFixture[str], command: list[str], said: str
) -> None:
    assert main(command) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_a_wrong_command_line_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["dance"],
        ["run", "--temperatur", "0", "hi"],
        ["bench", "--model", "x", "--depth", "a,b"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 2


def test_a_hub_model_without_network_says_what_to_do(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["export", "--model", "llama3.2-1b", "--quant", "8da4w"]) == 1
    told = capsys.readouterr().err
    assert "pass its path as --model" in told
    assert "meta-llama/Llama-3.2-1B-Instruct" in told


def test_an_output_without_a_name(
    store: Path, tiny_checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--model", str(tiny_checkpoint("llama")), "--output", ""]) == 1
    assert "is not the name of a file" in capsys.readouterr().err


@pytest.mark.parametrize("threads", ["1000", str(2**32 + 1)])
def test_too_many_threads(program: Path, threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench = ["bench", "--model", str(program), "--repeat", "1", "--prompt-tokens", "8"]
    for command in (["run", "hi"], [*bench, "--decode-tokens", "8"]):
        assert main([*command, "--threads", threads]) == 1
        assert f"threads is {threads}, expected 0 (automatic) to" in capsys.readouterr().err


def child(*command: str, redirect: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``edge-llm`` run by a shell, with a redirection."""
    line = f'exec "$@" {redirect}'
    call = ["sh", "-c", line, "sh", sys.executable, "-m", "edge_llm.cli.main", *command]
    return subprocess.run(
        call, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout(store: Path) -> None:
    done = child("ls", redirect=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"


def test_closed_streams(program: Path) -> None:
    assert child("ls", redirect=">&-").returncode == 0
    done = child("chat", "--model", str(program), redirect="<&-")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("\n") == 1  # which program answers


def test_a_terminal_without_the_character(program: Path) -> None:
    named = program.with_name("caf\u00e9.edge")
    program.rename(named)
    done = child("ls", redirect="", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "caf?" in done.stdout


def test_no_verb_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["help"], ["--help"]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 0
        assert "usage: edge-llm" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["help", "run"])
    assert "usage: edge-llm run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "error", "hint"),
    [
        (["exprot"], "there is no verb 'exprot'", "did you mean export?"),
        (["dance"], "there is no verb 'dance'", "`edge-llm --help`"),
        (["run", "--temprature", "1", "hi"], "edge-llm run has no option --temprature",
         "did you mean --temperature?"),
        (["run", "--temprature=1", "hi"], "no option --temprature", "--temperature"),
        (["run", "--temp", "0", "hi"], "edge-llm run has no option --temp",
         "did you mean --temperature?"),
        (["serve", "--prot", "1"], "edge-llm serve has no option --prot", "--port"),
        (["export", "-q", "8da4"], "argument --quant/-q: got '8da4', expected", "8da4w"),
        (["export", "-q", "zzz"], "argument --quant/-q: got 'zzz'", "`edge-llm export --help`"),
        (["run", "--seed", "x"], "argument --seed: got 'x', expected a whole number", "run --help"),
        (["--verison"], "edge-llm has no option --verison", "did you mean --version?"),
        (["hlep"], "there is no verb 'hlep'", "did you mean help?"),
        (["help", "dance"], "there is no verb 'dance'", "--help"),
    ],
)  # fmt: skip
def test_a_slip_is_told_with_what_was_meant(
    command: list[str], error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert error in first
    assert second.startswith("hint: ")
    assert hint in second


def test_a_model_that_was_taken_as_the_text_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--calibrate", "some-model"]) != 0
    error = capsys.readouterr().err
    assert "no model is named" in error
    assert "some-model was taken as the text of --calibrate" in error
