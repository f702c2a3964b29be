"""/set: every sampling parameter by its name."""

from __future__ import annotations

from typing import Any

import pytest

from edge_llm.cli.chat import settings
from edge_llm.cli.chat.session import Session
from edge_llm.errors import RequestError
from edge_llm.runner.sampling import PARAMETERS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0.5", 0.5),
        ("temperature", "1", 1.0),
        ("max_tokens", "12", 12),
        ("ignore_eos", "on", True),
        ("ignore_eos", "False", False),
        ("speculation", "ngram", "ngram"),
        ("stop", "END OF TEXT", ("END OF TEXT",)),
        ("stop", '["a", "\\n"]', ("a", "\n")),
        ("stop", '"\\n\\n"', ("\n\n",)),
        ("stop_token_ids", "1, 2 3", (1, 2, 3)),
        ("logit_bias", "5=-1 7=2.5", {5: -1.0, 7: 2.5}),
    ],
)
def test_values(name: str, text: str, value: Any) -> None:
    assert settings.value_of(name, text) == value
    assert settings.value_of(name, settings.shown(value)) == value  # what is shown can be typed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("temperature", "warm"),
        ("temperature", "nan"),
        ("temperature", "3"),
        ("max_tokens", "1.5"),
        ("ignore_eos", "perhaps"),
        ("speculation", "on"),
        ("stop", '["a"'),
        ("stop", "[1]"),
        ("logit_bias", "5"),
        ("stop_token_ids", "x"),
    ],
)
def test_values_that_are_none(name: str, text: str) -> None:
    with pytest.raises(RequestError, match=name):
        settings.value_of(name, text)


def test_each_parameter_is_shown_and_can_be_set_and_unset() -> None:
    from scripted_chat import ScriptedModel

    model: Any = ScriptedModel([])
    session = Session(model, lambda name: model, {}, None)
    assert set(PARAMETERS) <= {name for name, _, _ in session.shown_settings()}
    for name in PARAMETERS:
        default = getattr(session.params, name)
        session.set(name, default)
        session.set(name, None)
        assert session.overrides == {}
    session.set("temperature", 0.25)
    assert ("temperature*", "0.25") in [row[:2] for row in session.shown_settings()]
    with pytest.raises(RequestError, match="min_tokens is 9, expected at most max_tokens"):
        session.set("max_tokens", 5), session.set("min_tokens", 9)
    assert session.overrides == {"temperature": 0.25, "max_tokens": 5}


@pytest.mark.parametrize("line", ["top_k 7", "top_k=7", "top_k = 7", "top_k   7"])
def test_ways_to_write_it(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    from scripted_chat import ScriptedModel

    from edge_llm.cli.chat.loop import Talk

    model: Any = ScriptedModel([])
    chat = Talk(Session(model, lambda name: model, {}, None))
    chat.handle(f"/set {line}")
    assert chat.session.overrides == {"top_k": 7}
    assert capsys.readouterr().err == "(top_k: 7)\n"
    chat.handle("/set stop a=b")
    assert chat.session.params.stop == ("a=b",)


def test_aliases_and_names_that_are_none() -> None:
    assert settings.name_of("repeat_penalty") == "repetition_penalty"
    with pytest.raises(RequestError) as told:
        settings.name_of("temprature")
    assert "temperature" in str(told.value.hint)
