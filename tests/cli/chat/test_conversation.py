"""`edge-llm chat` with scripted input: what is said, kept and told."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_chat import ScriptedModel

import edge_llm
from edge_llm.cli.chat.loop import Talk
from edge_llm.cli.chat.session import Session
from edge_llm.cli.main import main

Program = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


def talk(
    program: Path, lines: str, monkeypatch: pytest.MonkeyPatch, *options: str, tokens: int = 5
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    command = ["chat", "--model", str(program), "--temperature", "0", "--max-tokens", str(tokens)]
    assert main([*command, *options]) == 0


@pytest.fixture
def scripted() -> Callable[..., tuple[Talk, ScriptedModel]]:
    def make(*answers: list[str]) -> tuple[Talk, ScriptedModel]:
        model: Any = ScriptedModel(list(answers))
        return Talk(Session(model, lambda name: model, {}, None)), model

    return make


def test_a_conversation(
    tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    saved = tmp_path / "talk.json"
    lines = f"/stats\nhello\n/stats\nand again\n/save {saved}\n/dance\n/quit\nnever read\n"
    program = tiny_program("8da4w")
    capsys.readouterr()  # what the export said
    talk(program, lines, monkeypatch)
    told = capsys.readouterr().err
    assert "nothing was answered yet" in told
    assert "tokens/s" in told
    assert "there is no command /dance" in told
    assert f"saved {saved}: 4 messages" in told
    messages = json.loads(saved.read_text())
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert [message["content"] for message in messages[::2]] == ["hello", "and again"]


def test_a_program_is_named_with_or_without_an_option(
    tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    program = str(tiny_program("8da4w"))
    for given in ([program], ["-m", program], [program, "--model", program]):
        monkeypatch.setattr("sys.stdin", io.StringIO("/show\n"))
        assert main(["chat", *given]) == 0
        assert f"8da4w, {program}" in capsys.readouterr().err
    assert main(["chat", program, "-m", str(tmp_path / "other.edge")]) == 1
    assert "two models are named" in capsys.readouterr().err


def test_system_and_reset(
    tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "talk.json"

    def roles() -> list[str]:
        return [message["role"] for message in json.loads(saved.read_text())]

    talk(tiny_program("8da4w"), f"hello\n/system be brief\nhi\n/save {saved}\n", monkeypatch)
    assert roles() == ["system", "user", "assistant"]
    talk(tiny_program("8da4w"), f"hello\n/reset\n/save {saved}\n", monkeypatch)
    assert roles() == []
    talk(
        tiny_program("8da4w"), f"hello\n/reset\n/save {saved}\n", monkeypatch, "--system", "be kind"
    )
    assert roles() == ["system"]


def test_several_lines_between_quotes_are_one_message(
    tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "talk.json"
    lines = f'"""one\n\n  two\n"""\n"""alone"""\n/save {saved}\n"""never closed\n'
    talk(tiny_program("8da4w"), lines, monkeypatch)
    asked = [message["content"] for message in json.loads(saved.read_text())[::2]]
    assert asked == ["one\n\n  two", "alone"]


def test_slashes(scripted: Callable[..., Any], capsys: Captured) -> None:
    chat, model = scripted(["a"], ["b"], ["c"])
    chat.handle("//etc is what?")
    chat.handle("/* a comment */")
    chat.handle("// another")
    asked = [messages[-1]["content"] for messages in model.asked]
    assert asked == ["/etc is what?", "/* a comment */", "// another"]
    with pytest.raises(edge_llm.EdgeLLMError, match="no command /sav, did you mean /save") as told:
        chat.handle("/sav it")
    assert "//sav" in str(told.value.hint)
    with pytest.raises(EOFError):
        chat.handle("/bye")


def test_a_message_that_cannot_be_answered_ends_nothing(
    tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    saved = tmp_path / "talk.json"
    talk(tiny_program("8da4w"), f"{'long ' * 400}\nhello\n/save {saved}\n", monkeypatch)
    told = capsys.readouterr().err
    assert "maximum context length" in told
    assert "nothing was sent or forgotten; a shorter message fits" in told
    assert len(json.loads(saved.read_text())) == 2


def test_an_answer_that_is_cut_says_by_what(
    tiny_program: Program, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    talk(tiny_program("8da4w"), "hello\n", monkeypatch, "--ignore-eos")
    assert "(cut at max_tokens, 5: /set max_tokens 16 allows more" in capsys.readouterr().err
    program = tiny_program("8da4w")
    talk(program, "hello\n", monkeypatch, "--ignore-eos", "--context", "64", tokens=1000)
    told = capsys.readouterr().err
    assert "(cut: the context of 64 tokens is full. /undo and /reset make room" in told
    assert "--context" in told


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(
    tiny_program: Program, capsys: Captured
) -> None:
    llm = edge_llm.load(tiny_program("8da4w"), max_sequences=1)
    with llm:
        session = Session(llm, edge_llm.load, {"temperature": 0, "ignore_eos": True}, None)
        chat = Talk(session)
        whole = llm.chat

        def interrupted(*arguments: Any, **options: Any) -> Any:
            pieces = whole(*arguments, **options)

            def two_then_ctrl_c() -> Any:
                yield next(pieces)
                yield next(pieces)
                pieces.close()
                raise KeyboardInterrupt

            return two_then_ctrl_c()

        llm.chat = interrupted  # type: ignore[method-assign]
        chat.handle("hello")
        assert "(stopped)" in capsys.readouterr().err
        assert [message["role"] for message in session.messages] == ["user", "assistant"]
        llm.chat = whole  # type: ignore[method-assign]
        chat.handle("go on")
        assert len(session.messages) == 4
        assert llm.stats().running == 0


def test_bytes_that_are_no_text_change_nothing(
    tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    saved = tmp_path / "talk.json"
    program = tiny_program("8da4w")
    talk(program, f"/system be \udcff\n\udcff\n/save \udcff\n/save {saved}\n", monkeypatch)
    assert capsys.readouterr().err.count("not valid text") == 3
    assert json.loads(saved.read_text()) == []
    assert main(["chat", "--model", str(program), "--system", "\udcff"]) == 1


def test_retry_and_undo(scripted: Callable[..., Any], capsys: Captured) -> None:
    chat, model = scripted(["one"], ["two"], ["three"])
    chat.handle("hello")
    chat.handle("/retry")
    assert [message["content"] for message in chat.session.messages] == ["hello", "two"]
    assert model.asked[1] == [{"role": "user", "content": "hello"}]
    chat.handle("again")
    chat.handle("/undo")
    assert len(chat.session.messages) == 2
    chat.handle("/undo")
    assert chat.session.messages == []
    for command in ("/undo", "/retry"):
        with pytest.raises(edge_llm.EdgeLLMError, match="nothing was asked yet"):
            chat.handle(command)
    chat.handle("/set seed 7")
    chat.session.messages = [{"role": "user", "content": "open"}]
    model._answers = iter([["same"]])
    chat.handle("/retry")
    assert "the answer will be the same" in capsys.readouterr().err


def test_another_program_goes_on_with_the_conversation(
    tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    saved, other = tmp_path / "talk.json", tiny_program("8da4w", "qwen3")
    lines = f"hello\n/model {other}\n/model nowhere\nand now\n/show\n/save {saved}\n"
    talk(tiny_program("8da4w"), lines, monkeypatch)
    told = capsys.readouterr().err
    assert "goes on with the conversation" in told
    assert "error: no program 'nowhere'" in told
    assert f"8da4w, {other}" in told
    assert "max_tokens 5" in told
    assert len(json.loads(saved.read_text())) == 4


def test_thinking_is_kept_apart(scripted: Callable[..., Any], capsys: Captured) -> None:
    chat, _ = scripted(["(so I )", "(think)", "It ", "is."])
    chat.handle("why?")
    answer = chat.session.messages[-1]
    assert (answer["content"], answer["reasoning_content"]) == ("It is.", "so I think")
    assert capsys.readouterr().out == "It is.\n"  # no terminal: the answer alone


def test_thinking_that_cannot_be_chosen_is_refused(
    tiny_program: Program, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    talk(tiny_program("8da4w"), "/set think on\n/set think off\n/set think maybe\n", monkeypatch)
    told = capsys.readouterr().err
    assert "does not think" in told
    assert "(think: off)" in told
    assert "got maybe, expected on, off or default" in told


def test_a_loop_is_stopped_and_said(scripted: Callable[..., Any], capsys: Captured) -> None:
    chat, _ = scripted(["I know. "] * 1000, ["I know. "] * 1000)
    chat.handle("do you know?")
    assert "(stopped: the answer repeats itself" in capsys.readouterr().err
    assert len(chat.session.messages[-1]["content"]) < 1000
    chat.handle("/set loops ignore")
    chat.handle("/retry")
    assert chat.session.messages[-1]["content"] == "I know. " * 1000


THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)


def test_a_model_that_thinks_is_told_whether_to(
    tiny_checkpoint: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    source, saved = tmp_path / "thinks", tmp_path / "talk.json"
    shutil.copytree(tiny_checkpoint("qwen3"), source)
    (source / "chat_template.jinja").write_text(THINKS)
    recipe = edge_llm.Recipe(model=str(source), gate=None, verify=False)
    program = edge_llm.export(recipe, output=tmp_path / "thinks.edge")
    lines = f"why?\n/set think off\nwhy?\n/set think\n/set think default\n/save {saved}\n"
    talk(program, lines, monkeypatch, "--ignore-eos")
    thought, said = json.loads(saved.read_text())[1::2]
    assert (thought["content"], bool(thought["reasoning_content"])) == ("", True)
    assert said["content"]
    assert "reasoning_content" not in said
    assert "think: off" in capsys.readouterr().err


def test_a_conversation_that_does_not_fit_is_not_loaded(
    tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    saved, long = tmp_path / "talk.json", tmp_path / "long.json"
    asked = [{"role": "user", "content": "word " * 20}]
    long.write_text(json.dumps(asked))
    lines = f"hello\n/load {long}\n/load {tmp_path}\n/save {saved}\n"
    talk(tiny_program("8da4w"), lines, monkeypatch, "--context", "64")
    told = capsys.readouterr().err
    assert "error: the conversation has" in told
    assert "Is a directory" in told
    assert len(json.loads(saved.read_text())) == 2
    talk(tiny_program("8da4w"), f"/load {long}\n/retry\n/save {saved}\n", monkeypatch)
    assert "the last one has no answer: /retry gives one" in capsys.readouterr().err
    assert json.loads(saved.read_text())[0] == asked[0]
    assert len(json.loads(saved.read_text())) == 2
