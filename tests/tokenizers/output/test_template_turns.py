"""What a chat template writes of an assistant's turn is read back from it, family by family."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from answers_read import NOW, TOOLS, WEATHER, cut, offers, read

from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.output.gemma_calls import GemmaCalls
from edge_llm.tokenizers.output.harmony import Harmony
from edge_llm.tokenizers.output.json_calls import JsonCalls
from edge_llm.tokenizers.output.named_calls import NamedCalls
from edge_llm.tokenizers.output.python_calls import PythonCalls
from edge_llm.tokenizers.output.table import output_syntax_of
from edge_llm.tokenizers.output.xml_calls import XmlCalls

# What FunctionGemma's template does with calls, as small as it gets: it is in no package.
FUNCTION_GEMMA = """{{ bos_token }}{% macro value(v) %}
{%- if v is string %}{{ '<escape>' + v + '<escape>' }}
{%- elif v is boolean %}{{ 'true' if v else 'false' }}
{%- elif v is mapping %}{ {%- for k, w in v | dictsort %}{{ k }}:{{ value(w) }}
{%- if not loop.last %},{% endif %}{% endfor %}}
{%- elif v is sequence %}[{% for w in v %}{{ value(w) }}{% if not loop.last %},{% endif %}
{%- endfor %}]{% else %}{{ v }}{% endif %}{% endmacro %}
{% for t in tools or [] %}{{ '<start_function_declaration>' + t.function.name }}{% endfor %}
{% for m in messages %}<start_of_turn>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}
{{- '<start_function_call>call:' + c.function.name + value(c.function.arguments) }}
{{- '<end_function_call>' }}{% endfor %}<end_of_turn>
{% endfor %}"""

ARGUMENTS: list[dict[str, Any]] = [
    {
        "city": 'Köln "<1>"\n\\x, {y}: </tool',
        "days": 2,
        "dry": True,
        "where": {"a": [1, None, "b", -1.5e3], "c": {}},
        "tags": ["x", "y z"],
    },
    {"city": " Rom"},
]
SINGLE = {"llama3_1", "llama3_2", "gptoss"}  # templates that write one call alone
MUTE = {"llama3_1", "llama3_2", "gptoss", "mistral_v2v3", "mistral_v3_tekken",
        "mistralai-Mistral-Nemo-Instruct-2407", "Mistral-Small-3.2-24B-Instruct-2506",
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"}  # fmt: skip
KINDS: dict[str, type] = {
    "qwen2_5": JsonCalls,
    "qwen3": JsonCalls,
    "qwen3_instruct_2507": JsonCalls,
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": JsonCalls,
    "ibm-granite-granite-4.0": JsonCalls,
    "llama3_1": JsonCalls,
    "llama3_2": JsonCalls,
    "mistral_v2v3": JsonCalls,
    "mistral_v3_tekken": JsonCalls,
    "mistralai-Mistral-Nemo-Instruct-2407": JsonCalls,
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": JsonCalls,
    "Apriel-1.6-15b-Thinker-fixed": JsonCalls,
    "Mistral-Small-3.2-24B-Instruct-2506": NamedCalls,
    "unsloth-mistral-Devstral-Small-2507": NamedCalls,
    "mistralai-Ministral-3-14B-Reasoning-2512": NamedCalls,
    "moonshotai-Kimi-K2": NamedCalls,
    "meetkai-functionary-medium-v3.1": NamedCalls,
    "Qwen3-Coder": XmlCalls,
    "qwen3_5_think": XmlCalls,
    "qwen3_8": XmlCalls,
    "nemotron_3_nano": XmlCalls,
    "glm4moe": XmlCalls,
    "GLM-4.7-Flash": XmlCalls,
    "ByteDance-Seed-OSS": XmlCalls,
    "MiniMax-M2": XmlCalls,
    "openbmb-MiniCPM5-1B": XmlCalls,
    "gemma4_v5": GemmaCalls,
    "google-gemma-4-31B-it": GemmaCalls,
    "exaone4": JsonCalls,
    "function-gemma": GemmaCalls,
    "LFM2.5-8B-A1B": PythonCalls,
    "gptoss": Harmony,
}


@pytest.fixture
def source_of(chat_template_source: Callable[[str], str]) -> Callable[[str], str]:
    def source(name: str) -> str:
        return FUNCTION_GEMMA if name == "function-gemma" else chat_template_source(name)

    return source


def called(arguments: list[dict[str, Any]], content: str = "") -> dict[str, Any]:
    calls = [
        {
            "id": f"abcdef12{index}",
            "type": "function",
            "function": {"name": WEATHER.name, "arguments": one},
        }
        for index, one in enumerate(arguments)
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def turn_of(template: ChatTemplate, message: dict[str, Any], marks: tuple[str, ...]) -> str:
    """The assistant's turn, from its first mark or its content on, without what ends it."""
    user = {"role": "user", "content": "Q?"}
    text = template.render([user, message], tools=offers(TOOLS), add_generation_prompt=False)
    text = text[text.rfind("Q?") + 2 :]
    begins = [at for mark in (*marks, "SAY", '{"name"') if (at := text.find(mark)) >= 0]
    return text[min(begins) :]


@pytest.mark.parametrize("name", KINDS)
def test_calls_come_back(name: str, source_of: Callable[[str], str]) -> None:
    source = source_of(name)
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    syntax = output_syntax_of(source, frozenset())
    assert isinstance(syntax.tools, KINDS[name])
    marks = syntax.tools.marks
    if name == "gptoss":
        marks = (" to=",)
    cases = [(ARGUMENTS[:1], ""), (ARGUMENTS[1:], "")]
    if name not in SINGLE:
        cases.append((ARGUMENTS, ""))
    if name not in MUTE:
        cases += [(ARGUMENTS, "SAY"), (ARGUMENTS[1:], "SAY\n\nSAY")]
    dice = random.Random(name)
    for arguments, content in cases:
        turn = turn_of(template, called(arguments, content), marks)
        answer = read(syntax, turn)
        assert answer.values == [(WEATHER.name, one) for one in arguments], turn
        assert answer.content.startswith(content)
        # Behind it is what ends the turn, control tokens, which no parser gets as text.
        assert not any(text in answer.content for text in ("Köln", "Rom", "city", WEATHER.name))
        for _ in range(30):
            places = [dice.randrange(len(turn)) for _ in range(dice.choice((1, 3, 50, 500)))]
            assert read(syntax, cut(turn, places)) == answer


@pytest.mark.parametrize("name", KINDS)
def test_a_call_without_arguments(name: str, source_of: Callable[[str], str]) -> None:
    source = source_of(name)
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    syntax = output_syntax_of(source, frozenset())
    assert syntax.tools is not None
    message = called([{}])
    message["tool_calls"][0]["function"]["name"] = NOW.name
    marks = (" to=",) if name == "gptoss" else syntax.tools.marks
    answer = read(syntax, turn_of(template, message, marks))
    assert answer.calls == [(NOW.name, "{}")]


def test_phi4_mini(chat_template_source: Callable[[str], str]) -> None:
    """Its template writes no calls; these are the model card's, and those of older prompts."""
    syntax = output_syntax_of(chat_template_source("phi4-mini"), frozenset())
    call = '[{"name": "weather", "arguments": {"city": "Rom"}}]'
    for text in (f"<|tool_call|>{call}<|/tool_call|>", f"functools{call}", f"<|tool_call|>{call}"):
        assert read(syntax, text).calls == [("weather", '{"city": "Rom"}')]
        assert read(syntax, text).content == ""


def test_granite3(chat_template_source: Callable[[str], str]) -> None:
    """Its template writes no calls, but says in words how they are written."""
    source = chat_template_source("ibm-granite-granite-3.3-2B-Instruct")
    syntax = output_syntax_of(source, frozenset())
    calls = (
        '[{"name": "weather", "arguments": {"city": "Rom"}}, {"name": "now-2", "arguments": {}}]'
    )
    answer = read(syntax, f"<|tool_call|>{calls}")
    assert answer.calls == [("weather", '{"city": "Rom"}'), (NOW.name, "{}")]
    assert answer.content == ""
    assert read(syntax, "Sure.").content == "Sure."


@pytest.mark.parametrize("name", ["LFM2-8B-A1B", "LFM2.5-Instruct"])
def test_lfm2(name: str, chat_template_source: Callable[[str], str]) -> None:
    """Its templates write no calls; these are the model card's, and Python's ways of writing
    them."""
    syntax = output_syntax_of(chat_template_source(name), frozenset())
    assert isinstance(syntax.tools, PythonCalls)
    texts = {
        'weather(city="Rom", days=2)': {"city": "Rom", "days": 2},
        "weather(city='it\\'s', dry=True, tags=['a', \"b\"])": {
            "city": "it's",
            "dry": True,
            "tags": ["a", "b"],
        },
        "weather( city = 'it's', where={'a': None, \"b\": (1, 2)} )": {
            "city": "it's",
            "where": {"a": None, "b": [1, 2]},
        },
        'weather(city="""a\nb""", days=-1.5e3)': {"city": "a\nb", "days": -1500.0},
        "weather(city='x', days=two)": {"city": "x", "days": "two"},
        "weather(city='C:\\\\x', a=__import__('os'))": {"city": "C:\\x", "a": "__import__('os')"},
    }
    for text, arguments in texts.items():
        answer = read(syntax, f"Let me see.<|tool_call_start|>[{text}]<|tool_call_end|>Soon.")
        assert answer.values[0] == ("weather", arguments)
        assert answer.content.startswith("Let me see.")
    two = "<|tool_call_start|>[weather(city='Rom'), now-2()]<|tool_call_end|>"
    assert read(syntax, two).values == [("weather", {"city": "Rom"}), (NOW.name, {})]
    cut_off = read(syntax, "<|tool_call_start|>[weather(city='Rom', days=")
    assert cut_off.calls == [("weather", '{"city": "Rom"')]
    many = ", ".join(["a='\\'"] * 20_000)  # each may be the end of all before
    ends = read(syntax, f"<|tool_call_start|>[weather({many})]<|tool_call_end|>")
    assert ends.calls[0][1].count('"a": ') == 20_000
    nothing = "<|tool_call_start|>no call<|tool_call_end|>"
    assert read(syntax, nothing).content == nothing


THINKING = {
    "qwen3": ("<think>", False, "enable_thinking", True),
    "qwen3_5_think": ("<think>", True, "enable_thinking", True),
    "qwen3_8": ("<think>", True, "enable_thinking", True),
    "nemotron_3_nano": ("<think>", True, "enable_thinking", True),
    "deepseek_r1_distill": ("<think>", True, None, True),
    "HuggingFaceTB-SmolLM3-3B": ("<think>", False, "enable_thinking", True),
    "deepseek-ai-DeepSeek-V3.1": ("<think>", False, "enable_thinking", False),
    "GLM-4.7-Flash": ("<think>", True, "enable_thinking", True),
    "gemma4_v5": ("<|channel>thought\n", False, "enable_thinking", False),
    "ByteDance-Seed-OSS": ("<seed:think>", False, None, True),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("[THINK]", False, None, True),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": (
        "<|START_THINKING|>", False, "enable_thinking", False,
    ),
    "gptoss": ("<|channel|>analysis<|message|>", False, None, True),
}  # fmt: skip


@pytest.mark.parametrize("name", THINKING)
def test_thinking(name: str, chat_template_source: Callable[[str], str]) -> None:
    source = chat_template_source(name)
    reasoning = output_syntax_of(source, frozenset()).reasoning
    assert reasoning is not None
    facts = (reasoning.open, reasoning.opened, reasoning.variable, reasoning.default)
    assert facts == THINKING[name]
    text = f"{reasoning.open}\n hm\nhm \n{reasoning.close}\n\n Yes. \n"
    if name == "gptoss":
        text = text.replace("Yes", "<|start|>assistant<|channel|>final<|message|>Yes")
    answer = read(output_syntax_of(source, frozenset()), text, tools=())
    assert answer.reasoning == "hm\nhm"
    assert answer.content.strip() == "Yes."
    if not reasoning.opened or name == "gptoss":
        return
    prompt = ChatTemplate(source, bos="<s>", eos="</s>").render([{"role": "user", "content": "a"}])
    assert reasoning.opened_by(prompt)
    opened = text.removeprefix(reasoning.open)
    assert read(output_syntax_of(source, frozenset()), opened, thinking=True) == answer


@pytest.mark.parametrize("name", ["qwen2_5", "llama3_1", "phi4-mini", "mistral_v1", "Qwen3-Coder"])
def test_models_that_do_not_think(name: str, chat_template_source: Callable[[str], str]) -> None:
    assert output_syntax_of(chat_template_source(name), frozenset()).reasoning is None


def test_marks_that_the_tokenizer_alone_has(chat_template_source: Callable[[str], str]) -> None:
    source = chat_template_source("qwen2_5")
    reasoning = output_syntax_of(source, frozenset({"<think>", "</think>"})).reasoning
    assert reasoning is not None
    assert not reasoning.mentioned
    assert reasoning.variables(enabled=False, effort=None) == {}


def test_a_template_whose_calls_no_row_knows(chat_template_source: Callable[[str], str]) -> None:
    assert output_syntax_of(chat_template_source("muse-glimmer"), frozenset()).tools is None
    assert output_syntax_of(chat_template_source("mistral_v1"), frozenset()).tools is None
    # The marks of a row do not make it so: this template writes something else between them.
    source = chat_template_source("qwen2_5").replace('"arguments": ', '"given": ')
    source = source.replace('\'{"name": "\'', "'<call name=\"'")
    assert output_syntax_of(chat_template_source("qwen2_5"), frozenset()).tools is not None
    assert output_syntax_of(source.replace('{\\"name\\": \\"', "<"), frozenset()).tools is None


def test_efforts(chat_template_source: Callable[[str], str]) -> None:
    harmony = output_syntax_of(chat_template_source("gptoss"), frozenset()).reasoning
    assert harmony is not None
    assert harmony.efforts == ("low", "medium", "high")
    qwen = output_syntax_of(chat_template_source("qwen3_8"), frozenset()).reasoning
    assert qwen is not None
    assert qwen.efforts == ("low", "medium", "xhigh")
