"""The texts for calibration: plain texts, and JSON lines of conversations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_checkpoints import CHAT_TEMPLATE
from transformers import AutoTokenizer

from edge_llm.errors import ConfigError
from edge_llm.export.origin import calibration_ids
from edge_llm.export.origin.calibration import BUILTIN, calibration_file, read_calibration
from edge_llm.export.origin.load import Loaded, load
from edge_llm.export.recipes.recipe import Recipe

Tiny = Callable[..., Path]

CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "Why is the sky blue?"},
    {"role": "assistant", "content": "Since air scatters blue light most."},
]
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few tokens are enough here."""
    monkeypatch.setattr(calibration_ids, "LEAST_TOKENS", 8)


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """``lines(value, ..., name=)``: a file with each value as JSON; texts are lines as they are."""

    def write(*values: Any, name: str = "chats.jsonl") -> Path:
        path = tmp_path / name
        rows = [value if isinstance(value, str) else json.dumps(value) for value in values]
        path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
        return path

    return write


def loaded(source: Path, text: Path | str, template: Path | None = None) -> Loaded:
    chosen = None if template is None else str(template)
    return load(Recipe(model=str(source), calibration=str(text), chat_template=chosen))


def ids_of(made: Loaded) -> list[int]:
    assert made.calibration is not None
    assert made.calibration.dtype == np.int32
    return made.calibration.tolist()


def without_template(source: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    shutil.copytree(source, folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_conversations_are_what_transformers_makes_of_them(
    tiny_checkpoint: Tiny, lines: Callable[..., Path]
) -> None:
    source = tiny_checkpoint("llama")
    theirs = AutoTokenizer.from_pretrained(source)
    longer = [*CHAT, {"role": "user", "content": "And <|im_end|> at night?"}]
    made = loaded(
        source,
        lines({"messages": CHAT, "id": 7}, {"text": "One text."}, {"text": "Two."}, "",
              {"messages": longer}),
    )  # fmt: skip
    first = theirs.apply_chat_template(CHAT, return_dict=False)
    texts = theirs.encode("One text.\n\nTwo.", add_special_tokens=False)
    got = ids_of(made)
    assert got[: len(first) + len(texts)] == first + texts
    [begin, end] = [theirs.convert_tokens_to_ids(f"<|im_{edge}|>") for edge in ("start", "end")]
    assert (got.count(begin), got.count(end)) == (5, 5)  # what a text says ends no turn
    assert any("with 2 conversations in the model's chat template" in note for note in made.notes)


def test_a_model_without_a_template_reads_conversations_as_text(
    tiny_checkpoint: Tiny, lines: Callable[..., Path], tmp_path: Path
) -> None:
    source = without_template(tiny_checkpoint("llama"), tmp_path)
    called = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
    made = loaded(source, lines({"messages": CHAT}, {"text": "A text."}, {"messages": called}))
    expected = (
        "User: Why is the sky blue?\nAssistant: Since air scatters blue light most.\n\nA text.\n\n"
        f"Assistant: {json.dumps([CALL])}"
    )
    theirs = AutoTokenizer.from_pretrained(source)
    assert ids_of(made) == theirs.encode(expected, add_special_tokens=False)
    assert any("conversations as plain text, since the model has no" in n for n in made.notes)


def test_names_tell_json_lines_from_text(tiny_checkpoint: Tiny, lines: Callable[..., Path]) -> None:
    source = tiny_checkpoint("llama")
    theirs = AutoTokenizer.from_pretrained(source)
    as_chat = theirs.apply_chat_template(CHAT, return_dict=False)
    for name in ("a.jsonl", "a.JSON"):
        assert ids_of(loaded(source, lines({"messages": CHAT}, name=name))) == as_chat
    path = lines({"messages": CHAT}, name="a.txt")
    assert ids_of(loaded(source, path)) == theirs.encode(path.read_text(), add_special_tokens=False)


def test_tools_and_parts_are_read_as_a_chat_reads_them(
    tiny_checkpoint: Tiny, lines: Callable[..., Path], tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(
        "{{ tools[0].function.name if tools }}{% for m in messages %}<|im_start|>{{ m.role }} "
        "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.arguments.a }}{% endfor %}"
        "<|im_end|>{% endfor %}"
    )
    call = {**CALL, "function": {"name": "look", "arguments": '{"a": "here"}'}}
    chat = [
        {"role": "user", "content": ["Look", {"type": "text", "text": "!"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    source = tiny_checkpoint("llama")
    made = loaded(source, lines({"messages": chat, "tools": tools}), template)
    text = AutoTokenizer.from_pretrained(source).decode(ids_of(made))
    assert text == "look<|im_start|>user Look!<|im_end|><|im_start|>assistant here<|im_end|>"


def test_the_date_of_a_template_is_always_the_same(
    tiny_checkpoint: Tiny, lines: Callable[..., Path], tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(f"{{{{ strftime_now('%d %b %Y') }}}}{CHAT_TEMPLATE}")
    source = tiny_checkpoint("llama")
    made = loaded(source, lines({"messages": CHAT}), template)
    text = AutoTokenizer.from_pretrained(source).decode(ids_of(made))
    assert text.startswith("01 Jan 2026<|im_start|>user")


def test_what_is_never_read_is_not_rendered(
    tiny_checkpoint: Tiny, lines: Callable[..., Path], tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% if messages|length > 2 %}{{ raise_exception('too many') }}{% endif %}" + CHAT_TEMPLATE
    )
    text = {"text": "word " * 5000}
    path = lines(text, {"messages": CHAT * 2})
    assert len(ids_of(loaded(tiny_checkpoint("llama"), path, template))) == calibration_ids.TOKENS
    path = lines({"messages": CHAT}, {"messages": CHAT * 2}, text)
    with pytest.raises(ConfigError, match=r"the conversation in line 2: .*too many") as caught:
        loaded(tiny_checkpoint("llama"), path, template)
    assert "--chat-template" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"messages": [', "not JSON: "),
        ("[1]", "got a list, expected an object"),
        ({"prompt": "a", "conversations": []}, "the object has conversations, prompt, expected"),
        ({}, "the object has nothing, expected either messages or text"),
        ({"messages": CHAT, "text": "a"}, "has messages and text, expected either"),
        ({"text": None}, "text is nothing, expected a text"),
        ({"messages": []}, "messages are empty, expected at least one"),
        ({"messages": "Hi"}, "messages are of type str, expected a list"),
        ({"messages": [{"from": "human", "value": "a"}]}, r"messages\[0\] has no role"),
        ({"messages": [{"role": "human", "content": "a"}]}, r"messages\[0\].role is 'human'"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is missing"),
        ({"messages": CHAT, "tools": [1]}, "tools is no list of objects"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line(
    line: Any, message: str, lines: Callable[..., Path]
) -> None:
    path = lines({"text": "Fine."}, "", line, {"text": "Fine."})
    with pytest.raises(ConfigError, match=rf"line 3 of .*chats\.jsonl: .*{message}") as caught:
        read_calibration(path)
    assert "plain text" in (caught.value.hint or "")


def test_the_beginning_of_long_json_lines_is_read(lines: Callable[..., Path]) -> None:
    path = lines(*[{"text": "é\u2028" * 100}] * 2000, "not read")
    pieces = read_calibration(path)
    assert 1 < len(pieces) < 2000
    assert {piece.text for piece in pieces} == {"é\u2028" * 100}
    with pytest.raises(ConfigError, match=r"line 1 of .* is longer than 262,144 bytes"):
        read_calibration(lines({"text": "x" * 2**18}))


def test_the_texts_that_come_along(tiny_checkpoint: Tiny) -> None:
    pieces = read_calibration(calibration_file(BUILTIN))
    chats = [piece for piece in pieces if piece.messages]
    assert len(chats) >= 4
    assert all(
        [turn["role"] for turn in chat.messages][:2] == ["user", "assistant"] for chat in chats
    )
    made = loaded(tiny_checkpoint("llama"), BUILTIN)
    assert any("conversations in the model's chat template" in note for note in made.notes)
