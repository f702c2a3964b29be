"""Parsers of answers: however the text is cut, whatever the model writes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from answers_read import TOOLS, collect, cut, read
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_llm.errors import RequestError
from edge_llm.parsed import Parsed, Tool, ToolCallDelta
from edge_llm.tokenizers.output.syntax import OutputSyntax, ReasoningSyntax
from edge_llm.tokenizers.output.table import TOOL_SYNTAXES

THINK = ReasoningSyntax("<think>", "</think>")
HERMES = OutputSyntax(THINK, TOOL_SYNTAXES["hermes"])
LLAMA = OutputSyntax(None, TOOL_SYNTAXES["llama3"])
CODER = OutputSyntax(THINK, TOOL_SYNTAXES["qwen3-coder"])
HARMONY = OutputSyntax(None, TOOL_SYNTAXES["harmony"])
MISTRAL = OutputSyntax(None, TOOL_SYNTAXES["mistral"])
GEMMA = OutputSyntax(None, TOOL_SYNTAXES["gemma4"])
DEEPSEEK = OutputSyntax(THINK, TOOL_SYNTAXES["deepseek-v3"])

ROME = '{"city": "Rom"}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ROME}}}\n</tool_call>'


def pieces(name: str) -> st.SearchStrategy[str]:
    """Texts of what a syntax is made of, in any order, well formed or not."""
    marks = [*TOOL_SYNTAXES[name].marks, "<think>", "</think>", "<|message|>", "<|channel|>"]
    parts = [
        *marks, "weather", '{"name": "weather", ', '"arguments": ', '"parameters": ', '{"city": ',
        '"a\\"b\\u00e9"', "}", "]", "[", "{", ",", ";", ":", " ", "\n", "é", '"', "\\", ">",
        "call:", "city", "days", "2", "null", "commentary to=functions.weather", "analysis",
        "assistant",
    ]  # fmt: skip
    some = st.sampled_from(parts) | st.sampled_from(marks) | st.text(max_size=3)
    return st.lists(some, max_size=25).map("".join)


@pytest.mark.parametrize("name", TOOL_SYNTAXES)
def test_cuts_change_nothing(name: str) -> None:
    syntax = OutputSyntax(THINK, TOOL_SYNTAXES[name])

    @settings(max_examples=150, deadline=None)
    @given(pieces(name), st.lists(st.integers(0, 400), max_size=40), st.booleans())
    def check(text: str, places: list[int], thinking: bool) -> None:
        whole = read(syntax, text, thinking=thinking)
        assert read(syntax, cut(text, places), thinking=thinking) == whole
        assert read(syntax, list(text), thinking=thinking) == whole

    check()


@pytest.mark.parametrize("name", TOOL_SYNTAXES)
def test_text_without_marks_is_content(name: str) -> None:
    syntax = OutputSyntax(THINK, TOOL_SYNTAXES[name])

    @settings(max_examples=50, deadline=None)
    @given(st.text(alphabet=st.characters(exclude_characters="<[{|f\u2581\uff5c ")))
    def check(text: str) -> None:
        assert read(syntax, text) == (text, "", [])

    check()


def test_content_and_calls() -> None:
    answer = read(HERMES, f" Let me see.\n\n{CALL}\n\n{CALL}\n \n")
    assert answer == (" Let me see.", "", [("weather", ROME)] * 2)
    assert read(HERMES, f"{CALL}\nDone. ").content == "Done. "
    assert read(HERMES, f"\n{CALL}").content == ""
    assert read(HERMES, "a <tool_ca").content == "a <tool_ca"
    assert read(HERMES, "  a \n").content == "  a \n"


@pytest.mark.parametrize("end", ["", "<", "<tool_call>", '\n<tool_call>\n{"na'])
def test_what_may_be_calls_alone_says_nothing(end: str) -> None:
    """A length cuts the next call off before its name."""
    for begun in ("", CALL):
        parser = HERMES.parser(tools=TOOLS, calls_only=True)
        answer = collect([parser.text(f"<think>\nso\n</think>\n\n{begun}{end}"), parser.finish()])
        assert answer == ("", "so", [("weather", ROME)] if begun else [])


def test_deltas_come_as_the_text_does() -> None:
    parser = HERMES.parser(tools=TOOLS)
    assert parser.text("Hi <too") == Parsed("Hi")
    assert parser.text('l_call>\n{"name": "wea') == Parsed()
    assert parser.text('ther"') == Parsed(tool_calls=(ToolCallDelta(0, "weather"),))
    assert parser.text(', "arguments": {"city"').tool_calls == (ToolCallDelta(0, None, '{"city"'),)
    assert parser.text(": 1").tool_calls == (ToolCallDelta(0, None, ": 1"),)
    assert parser.finish() == Parsed()


def test_control_tokens_are_marks_or_nothing() -> None:
    parser = HERMES.parser(tools=TOOLS)
    parts = [
        parser.special(7, "<tool_call>"),
        parser.text(f'{{"name": "weather", "arguments": {ROME}}}'),
        parser.special(8, "</tool_call>"),
        parser.special(9, "<|im_end|>"),
        parser.finish(),
    ]
    assert collect(parts) == ("", "", [("weather", ROME)])


def test_without_tools_all_is_content() -> None:
    assert read(HERMES, CALL, tools=()) == (CALL, "", [])
    assert read(LLAMA, '{"name": "weather"}', tools=()).content == '{"name": "weather"}'


def test_thinking_then_content_then_calls() -> None:
    text = f"<think>\nso <tool_call> or\n</think>\n\nYes\n{CALL}"
    assert read(HERMES, text) == ("Yes", "so <tool_call> or", [("weather", ROME)])
    assert read(HERMES, text[8:], thinking=True) == read(HERMES, text)
    assert read(HERMES, "<think>never ends") == ("", "never ends", [])
    assert read(HERMES, "I wrote <think>a</think>").content == "I wrote <think>a</think>"
    parser = HERMES.parser(thinking=True)
    assert parser.reasoning
    parser.text("hm</thi")
    assert parser.reasoning
    parser.text("nk>")
    assert not parser.reasoning


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        # Not a call: content, as it is written.
        ("<tool_call>\nnothing\n</tool_call>", None, []),
        ("<tool_call></tool_call>", None, []),
        ('<tool_call>{"arguments": {"a": 1}}</tool_call>', None, []),
        ('<tool_call>{"name": 1}</tool_call>', None, []),
        ('<tool_call>{"name": "weath', None, []),
        # A call of which something is wrong: what there is of it.
        ('<tool_call>{"name": "weather"}</tool_call>', "", [("weather", "{}")]),
        ('<tool_call>{"name": "other", "arguments": {}}</tool_call>', "", [("other", "{}")]),
        ('<tool_call>{"name": "weather", "arguments": {"a": tru', "", [("weather", '{"a": tru')]),
        (
            '<tool_call>{"name": "weather", "arguments": {"a": 1}</tool_call>!',
            "!",
            [("weather", '{"a": 1}')],
        ),
        (
            '<tool_call>{"name": "weather", "arguments": {"a": [1}}</tool_call>!',
            "!",
            [("weather", '{"a": [1}}')],
        ),
        (
            '<tool_call>{"name": "weather", "arguments": {}}}\n</tool_call>!',
            "!",
            [("weather", "{}")],
        ),
        (f'{CALL[:-12]}<tool_call>{{"name": "b"}}', "", [("weather", ROME), ("b", "{}")]),
        # Other ways to say the same.
        (
            '<tool_call>{"id": [1, {"name": 2}], "parameters": {"a": 1}, "name": "b"}</tool_call>',
            "",
            [("b", '{"a": 1}')],
        ),
        (
            '<tool_call>{"name": "b", "arguments": "{\\"a\\": \\"\\u00e9\\"}"}</tool_call>',
            "",
            [("b", '{"a": "é"}')],
        ),
        (
            '<tool_call>[{"name": "a", "arguments": {}}, {"name": "b"}]</tool_call>',
            "",
            [("a", "{}"), ("b", "{}")],
        ),
        (
            '<tool_call>{"name": "b", "arguments": {"a": "</tool_call>"}}</tool_call>',
            "",
            [("b", '{"a": "</tool_call>"}')],
        ),
    ],
)
def test_malformed_calls_of_json(
    text: str, content: str | None, calls: list[tuple[str, str]]
) -> None:
    expected = (text if content is None else content, "", calls)
    assert read(HERMES, text) == expected
    assert read(HERMES, list(text)) == expected


def test_llama_calls_are_bare() -> None:
    one = '{"name": "weather", "parameters": {"city": "Rom"}}'
    assert read(LLAMA, one) == ("", "", [("weather", ROME)])
    assert read(LLAMA, f"{one}; {one}").calls == [("weather", ROME)] * 2
    assert read(LLAMA, f"<|python_tag|>{one};{one}").calls == [("weather", ROME)] * 2
    typed = '{"type": "function", "name": "weather", "parameters": {}}'
    assert read(LLAMA, typed).calls == [("weather", "{}")]
    for text in (
        '{"name": "Alice", "parameters": {"a": 1}}',
        '{"city": "Rom", "name": "weather"}',
        f"Sure: {one}",
        '{"name"',
        "{",
    ):
        assert read(LLAMA, text) == (text, "", [])


def test_arguments_of_elements_have_the_types_of_the_schema() -> None:
    parameters = {
        "type": "object",
        "properties": {
            "s": {"type": "string"},
            "n": {"type": "number"},
            "b": {"type": "boolean"},
            "o": {"$ref": "#/$defs/o"},
            "m": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "e": {"enum": ["1", "2"]},
        },
        "$defs": {"o": {"type": "object"}},
    }
    values = {
        "s": ("5", '"5"'),
        "n": ("5", "5"),
        "b": ("True", "true"),
        "o": ('{"a": 1}', '{"a": 1}'),
        "m": ("None", "null"),
        "e": ("1", '"1"'),
        "unknown": ("1.5", "1.5"),
        "other": ("text", '"text"'),
    }
    text = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, (v, _) in values.items())
    text = f"<tool_call>\n<function=f>\n{text}</function>\n</tool_call>"
    expected = "{" + ", ".join(f'"{k}": {v}' for k, (_, v) in values.items()) + "}"
    assert read(CODER, text, tools=[Tool("f", None, parameters)]).calls == [("f", expected)]
    wrong = text.replace("\n5\n", "\nfive\n")
    ((_, arguments),) = read(CODER, wrong, tools=[Tool("f", None, parameters)]).calls
    assert json.loads(arguments)["n"] == "five"  # for the client to judge


def test_strings_of_elements_stream() -> None:
    parser = CODER.parser(tools=TOOLS)
    parser.text("<tool_call>\n<function=weather>\n<parameter=city>\n")
    assert parser.text('R"\nom\n').tool_calls == (ToolCallDelta(0, None, 'R\\"\\nom'),)
    rest = [parser.text("\n</parameter>\n</function>\n</tool_call>"), parser.finish()]
    assert "".join(d.arguments for part in rest for d in part.tool_calls) == '\\n"}'


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("<function=weather>\n<parameter=city>\nRom\n</parameter>\n</function>\n</tool_call>!",
         "!", [("weather", ROME)]),
        ("<tool_call>\n<function=weather>\n</tool_call>", "", [("weather", "{}")]),
        ("<tool_call>\n<function=weather>\n<parameter=city>\nRo", "",
         [("weather", '{"city": "Ro')]),
        ("<tool_call>\nno\n</tool_call>", None, []),
        ("<function=", None, []),
    ],
)  # fmt: skip
def test_malformed_calls_of_elements(
    text: str, content: str | None, calls: list[tuple[str, str]]
) -> None:
    assert read(CODER, text) == (text if content is None else content, "", calls)


def test_harmony_goes_on_with_thinking_that_the_prompt_has_begun() -> None:
    reasoning = ReasoningSyntax("<|channel|>analysis<|message|>", "<|end|>")
    syntax = OutputSyntax(reasoning, HARMONY.tools)
    text = "so<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>"
    assert read(syntax, text, thinking=True) == ("Yes", "so", [])
    assert read(syntax, "so", thinking=True) == ("", "so", [])
    whole = f"<|channel|>analysis<|message|>{text}"
    assert read(syntax, whole) == ("Yes", "so", [])


def test_harmony() -> None:
    text = (
        "<|channel|>analysis<|message|>We need it.<|end|><|start|>assistant<|channel|>commentary"
        "<|message|>Looking.<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
        '<|constrain|>json<|message|>{"city": "Rom"}<|call|>'
    )
    assert read(HARMONY, text) == ("Looking.", "We need it.", [("weather", ROME)])
    final = (
        "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Yes"
    )
    assert read(HARMONY, final, tools=()) == ("Yes", "Hm", [])
    assert read(HARMONY, "Just text <b>") == ("Just text <b>", "", [])
    assert read(HARMONY, " to=functions.now-2<|channel|>commentary json<|message|>").calls == [
        ("now-2", "{}")
    ]
    parser = HARMONY.parser(tools=())
    parser.special(1, "<|channel|>")
    parser.text("analysis")
    assert not parser.reasoning
    parser.special(2, "<|message|>")
    assert parser.reasoning
    parser.special(3, "<|end|>")
    assert not parser.reasoning


def test_others() -> None:
    calls = f'[TOOL_CALLS] [{{"name": "weather", "arguments": {ROME}, "id": "abcdefghi"}}]'
    assert read(MISTRAL, calls) == ("", "", [("weather", ROME)])
    gemma = '<|tool_call>call:weather{city:<|"|>Rom<|"|>,l:[1,{a:null}],o:{}}<tool_call|>'
    expected = '{"city": "Rom", "l": [1, {"a": null}], "o": {}}'
    assert read(GEMMA, gemma).calls == [("weather", expected)]
    deep = (
        "<think>a</think>Ok<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>function"
        "<\uff5ctool\u2581sep\uff5c>weather\n"
        f"```json\n{ROME}\n```<\uff5ctool\u2581call\u2581end\uff5c><\uff5ctool\u2581calls\u2581end\uff5c>"
    )
    assert read(DEEPSEEK, deep) == ("Ok", "a", [("weather", ROME)])


@pytest.mark.parametrize(
    ("reasoning", "enabled", "effort", "variables"),
    [
        (ReasoningSyntax("a", "b", variable="t"), True, None, {"t": True}),
        (ReasoningSyntax("a", "b", variable="t"), False, None, {"t": False}),
        (ReasoningSyntax("a", "b", variable="t"), None, None, {}),
        (ReasoningSyntax("a", "b", variable="t"), None, "high", {"t": True}),
        (ReasoningSyntax("a", "b", variable="t"), None, "none", {"t": False}),
        (ReasoningSyntax("a", "b"), True, None, {}),
        (ReasoningSyntax("a", "b"), False, None, None),
        (ReasoningSyntax("a", "b", mentioned=False), False, None, {}),
        (ReasoningSyntax("a", "b", mentioned=False), None, "none", {}),
        (ReasoningSyntax("a", "b"), None, "low", None),
        (ReasoningSyntax("a", "b", effort_variable="e", efforts=("low",)), None, "low",
         {"e": "low"}),
        (ReasoningSyntax("a", "b", effort_variable="e", efforts=("low",)), None, "high", None),
        (ReasoningSyntax("a", "b", effort_variable="e", efforts=("low",)), None, "none", None),
        (ReasoningSyntax("a", "b", effort_variable="e", efforts=("none", "low")), False, None,
         {"e": "none"}),
        (ReasoningSyntax("a", "b", variable="t", default=False, effort_variable="e",
                         efforts=("low",)), None, "low", {"t": True, "e": "low"}),
    ],
)  # fmt: skip
def test_switches(
    reasoning: ReasoningSyntax,
    enabled: bool | None,
    effort: str | None,
    variables: dict[str, object] | None,
) -> None:
    ask: Callable[[], dict[str, object]] = lambda: reasoning.variables(  # noqa: E731
        enabled=enabled, effort=effort
    )
    if variables is None:
        with pytest.raises(RequestError, match="chat template has no"):
            ask()
    else:
        assert ask() == variables
