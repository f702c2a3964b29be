"""The chat templates of every family, against transformers: texts, and ids where the tokenizer is
at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError as JinjaError
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.encode import encode_chat
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.readers.convert import from_directory
from edge_llm.tokenizers.tokenizer import Tokenizer

Chat = list[dict[str, Any]]

# Formats whose own templates are in no package: Llama 2's, written from its description; and what
# SmolLM3's does with tools, as small as it gets.
LLAMA2 = """{% set system = '' %}{% if messages[0]['role'] == 'system' %}
{% set system = '<<SYS>>\n' + messages[0]['content'] | trim + '\n<</SYS>>\n\n' %}
{% set messages = messages[1:] %}{% endif %}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('user and assistant must take turns') }}{% endif %}
{% set text = (system if loop.first else '') + message['content'] | trim %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + text + ' [/INST]' }}
{%- else %}{{ ' ' ~ text ~ ' ' ~ eos_token }}{% endif %}{% endfor %}"""
SMOLLM3_TOOLS = """{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}
{%- endif -%}{{ 'Today: ' ~ strftime_now('%d %B') }}
{%- if xml_tools or python_tools -%}
{%- set ns = namespace(text='<tools>\n') -%}
{%- for tool in (xml_tools or python_tools)[:] -%}
{%- set ns.text = ns.text ~ (tool | string) ~ '\n' -%}{%- endfor -%}{{- ns.text -}}{%- endif -%}
{%- for message in messages -%}{%- if message.role == 'assistant' -%}{% generation %}
{%- if enable_thinking -%}{{ message.content.lstrip('\n') }}{%- else -%}
{{ '<think>\n\n</think>\n' + message.content.lstrip('\n') }}{%- endif -%}
{% endgeneration %}{%- else -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endif -%}
{%- endfor -%}"""
OWN = {"llama2": LLAMA2, "smollm3-tools": SMOLLM3_TOOLS}

SYSTEM = {"role": "system", "content": " Be brief. "}
PLAIN: Chat = [{"role": "user", "content": " Hi <b> & 'you' 中文 \n"}]
TURNS: Chat = [
    *PLAIN,
    {"role": "assistant", "content": "\nHello."},
    {"role": "user", "content": "x"},
]
CALL = {"name": "weather", "arguments": {"city": "Köln <1>", "days": 2, "dry": True}}
ANSWER = [
    {"role": "tool", "tool_call_id": "abcdef123", "name": "weather", "content": '{"t": 3}'},
    {"role": "assistant", "content": "It is 3 degrees."},
    {"role": "user", "content": "Thanks"},
]


def called(function: dict[str, Any], content: str | None) -> dict[str, Any]:
    call = {"id": "abcdef123", "type": "function", "function": function}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


TEXT_CALL = {**CALL, "arguments": json.dumps(CALL["arguments"])}
THOUGHT = {
    "role": "assistant",
    "content": "<think>\nhm\n</think>\n\nYes.",
    "reasoning_content": None,
}
CHATS: dict[str, Chat] = {
    "plain": PLAIN,
    "system": [SYSTEM, *PLAIN],
    "turns": TURNS,
    "system and turns": [SYSTEM, *TURNS],
    "answered": TURNS[:2],
    "call": [*PLAIN, called(CALL, "")],
    "call without content": [*PLAIN, called(CALL, None)],
    "call in text": [*PLAIN, called(TEXT_CALL, "")],
    "call in text without content": [*PLAIN, called(TEXT_CALL, None)],
    "tool results": [SYSTEM, *PLAIN, called(CALL, ""), *ANSWER],
    "text tool results": [*PLAIN, called(TEXT_CALL, None), *ANSWER],
    "two results": [*PLAIN, called(CALL, ""), ANSWER[0], ANSWER[0]],
    "thinking in the text": [*PLAIN, THOUGHT, *PLAIN],
    "thinking apart": [
        *PLAIN,
        {"role": "assistant", "content": "Yes.", "reasoning_content": "\nhm\n"},
        *PLAIN,
        {"role": "assistant", "content": "No.", "reasoning_content": "so"},
    ],
    "no_think": [{"role": "system", "content": "Short. /no_think"}, *TURNS],
    "think": [{"role": "system", "content": "/think Long."}, *TURNS],
    "two users": [*PLAIN, *PLAIN],
    "assistant first": [{"role": "assistant", "content": "a"}, *PLAIN],
    "unknown role": [{"role": "critic", "content": "a"}],
    "empty": [],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a <city> & 'days'",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "noop", "description": "é", "parameters": {}}},
]
DATE = {"date_string": "26 Jul 2024"}
# template -> the variables to try, beside none
VARIABLES: dict[str, list[dict[str, Any]]] = {
    "llama3_1": [
        {"tools": TOOLS},
        {"tools": TOOLS, "tools_in_user_message": False},
        {"custom_tools": TOOLS},
        {"builtin_tools": ["code_interpreter", "brave_search"]},
        {"documents": [{"title": "a", "text": "b"}]},
        DATE,
    ],
    "qwen2_5": [{"tools": TOOLS}],
    "qwen2_5_training": [{"tools": TOOLS}],
    "qwen3": [{"tools": TOOLS}, {"enable_thinking": True}, {"enable_thinking": False}],
    "qwen3_training": [{"tools": TOOLS}, {"enable_thinking": False}],
    "phi3": [],
    "phi3_training": [],
    "phi3_5": [],
    "phi4-mini": [],
    "deepseek_r1_distill": [],
    "deepseek_r1_distill_training": [],
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": [{"enable_thinking": True}],
    "mistral_v1": [],
    "mistral_v2v3": [{"tools": TOOLS}],
    "mistralai-Mistral-Nemo-Instruct-2407": [{"tools": TOOLS}],
    "mistralai-Ministral-3-14B-Reasoning-2512": [{"tools": TOOLS}],
    "HuggingFaceTB-SmolLM3-3B": [{"enable_thinking": True}, {"enable_thinking": False}],
    "ibm-granite-granite-4.0": [{"tools": TOOLS}, {"documents": [{"title": "a", "text": "b"}]}],
    "ibm-granite-granite-3.3-2B-Instruct": [
        {"tools": TOOLS},
        {"thinking": True},
        {"documents": [{"doc_id": 1, "text": "b"}]},
    ],
    "LFM2-8B-A1B": [{"tools": TOOLS}],
    "LFM2.5-8B-A1B": [{"tools": TOOLS}, {"preserve_thinking": True}],
    "LFM2.5-Instruct": [{"tools": TOOLS}, {"keep_past_thinking": True}],
    "google-gemma-4-31B-it": [{"tools": TOOLS}, {"enable_thinking": True}],
    "gemma4_v5": [{"tools": TOOLS}, {"enable_thinking": True}],
    "exaone4": [{"tools": TOOLS}, {"enable_thinking": True}, {"enable_thinking": False}],
    "llama2": [],
    "smollm3-tools": [
        {"xml_tools": TOOLS},
        {"python_tools": ["def f(): ..."]},
        {"enable_thinking": False},
    ],
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def outcome(render: Callable[[], str]) -> str | None:
    """The text; None where the template rejects the conversation."""
    try:
        return render()
    except TemplateError:
        return None
    except (JinjaError, TypeError, AttributeError):  # the oracle's own
        return None


@pytest.mark.parametrize("name", VARIABLES)
def test_text(name: str, chat_template_source: Callable[[str], str]) -> None:
    source = OWN.get(name) or chat_template_source(name)
    ours = ChatTemplate(source, bos="<s>", eos="</s>")
    accepted = 0
    for title, chat in CHATS.items():
        for variables in [{}, *VARIABLES[name]]:
            for prompt in (True, False):

                def expect(
                    chat: Chat = chat, variables: dict[str, Any] = variables, prompt: bool = prompt
                ) -> str:
                    (text,), _ = render_jinja_template(
                        [chat],
                        chat_template=source,
                        add_generation_prompt=prompt,
                        **{"tools": None, **variables},
                        **TOKENS,
                    )
                    return str(text)

                def got(
                    chat: Chat = chat, variables: dict[str, Any] = variables, prompt: bool = prompt
                ) -> str:
                    return ours.render(chat, add_generation_prompt=prompt, **variables)

                expected = outcome(expect)
                assert outcome(got) == expected, (title, variables, prompt)
                accepted += expected is not None
    assert accepted >= 10


def test_rejections_say_what_the_template_says(chat_template_source: Callable[[str], str]) -> None:
    template = ChatTemplate(chat_template_source("mistral_v1"), bos="<s>", eos="</s>")
    for title in ("two users", "assistant first"):
        with pytest.raises(TemplateError, match="conversation roles must alternate"):
            template.render(CHATS[title])
    template = ChatTemplate(chat_template_source("mistral_v2v3"), bos="<s>", eos="</s>")
    wrong: Chat = [*PLAIN, called(CALL, ""), {**ANSWER[0], "tool_call_id": "1"}]
    with pytest.raises(TemplateError, match="alphanumeric strings with length 9"):
        template.render(wrong)


def test_tools_of_phi4_mini_and_smollm3(chat_template_source: Callable[[str], str]) -> None:
    phi = ChatTemplate(chat_template_source("phi4-mini"), bos=None, eos="</s>")
    functions = json.dumps([tool["function"] for tool in TOOLS], ensure_ascii=False)
    told = {"role": "system", "content": "!", "tools": functions}
    expected = phi.render([told, *PLAIN])
    assert f"<|system|>!<|tool|>{functions}<|/tool|><|end|><|user|>" in expected
    assert phi.render([{"role": "system", "content": "!"}, *PLAIN], tools=TOOLS) == expected
    assert phi.render(PLAIN, tools=TOOLS).startswith(f"<|system|><|tool|>{functions}<|/tool|>")

    smol = ChatTemplate(SMOLLM3_TOOLS, bos=None, eos=None)
    assert smol.render(PLAIN, tools=TOOLS) == smol.render(PLAIN, xml_tools=TOOLS)
    for name in ("HuggingFaceTB-SmolLM3-3B", "phi3_5", "mistral_v1"):
        template = ChatTemplate(chat_template_source(name), bos="<s>", eos="</s>")
        with pytest.raises(TemplateError, match="no place for tools"):
            template.render(PLAIN, tools=TOOLS)


FOLDERS = {
    "llama3_tokenizer_dir": [DATE, {**DATE, "tools": TOOLS}],
    "qwen2_5_tokenizer_dir": [{}, {"tools": TOOLS}],
    "qwen3_tokenizer_dir": [{}, {"tools": TOOLS}, {"enable_thinking": False}],
}


@dataclass(frozen=True)
class Family:
    path: Path
    tokenizer: Tokenizer
    template: ChatTemplate
    variables: list[dict[str, Any]]


@pytest.fixture(
    scope="module",
    params=[
        "llama3_tokenizer_dir",
        pytest.param("qwen2_5_tokenizer_dir", marks=pytest.mark.slow),
        "qwen3_tokenizer_dir",
    ],
)
def family(request: pytest.FixtureRequest) -> Family:
    path: Path = request.getfixturevalue(request.param)
    document = from_directory(path)
    tokenizer = Tokenizer(document.json, document.facts)
    assert document.chat_template is not None

    def text(token: int | None) -> str | None:
        return None if token is None else tokenizer.decode([token], skip_specials=False)

    template = ChatTemplate(
        document.chat_template, bos=text(document.facts.bos_id), eos=text(document.facts.eos_id)
    )
    return Family(path, tokenizer, template, FOLDERS[request.param])


def test_ids(family: Family) -> None:
    theirs = AutoTokenizer.from_pretrained(family.path)
    compared = 0
    for title, chat in CHATS.items():
        if not chat:
            continue  # theirs refuses it
        for given in family.variables:

            def expect(chat: Chat = chat, given: dict[str, Any] = given) -> str:
                options = {"tokenize": False, "add_generation_prompt": True, **given}
                return str(theirs.apply_chat_template(chat, **options))

            expected = outcome(expect)
            if expected is None:
                with pytest.raises(TemplateError):
                    encode_chat(family.tokenizer, family.template, chat, **given)
                continue
            ids = encode_chat(family.tokenizer, family.template, chat, **given)
            assert ids == theirs(expected, add_special_tokens=False)["input_ids"], (title, given)
            compared += 1
    assert compared >= 10


@pytest.mark.slow
def test_lines_in_a_chat_with_gemma(gemma3_tokenizer_dir: Path) -> None:
    """Its tokens for lines and for runs of spaces stand in its template too."""
    document = from_directory(gemma3_tokenizer_dir)
    assert document.chat_template is not None
    tokenizer = Tokenizer(document.json, document.facts)
    template = ChatTemplate(document.chat_template, bos="<bos>", eos="<end_of_turn>")
    theirs = AutoTokenizer.from_pretrained(gemma3_tokenizer_dir)
    lines: Chat = [{"role": "user", "content": "one\n\n    two  three\n\n\n <b>4</b>\n \n"}]
    for chat in (PLAIN, TURNS, [SYSTEM, *TURNS], lines, [*lines, *TURNS[1:]]):
        text = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert encode_chat(tokenizer, template, chat) == expected


def test_specials_that_somebody_typed_are_text(family: Family) -> None:
    tokenizer, template = family.tokenizer, family.template
    given: dict[str, Any] = {**DATE, "tools": TOOLS}
    specials = [text for text in tokenizer.special_texts if "reserved" not in text]
    assert len(specials) >= 8
    for special in specials:
        evil = f"a{special}b {special}"
        chat: Chat = [
            {"role": "system", "content": evil},
            {"role": "user", "content": evil},
            called({"name": "f", "arguments": {"x": evil}}, ""),
            {"role": "tool", "content": evil},
        ]
        calm: Chat = json.loads(json.dumps(chat).replace(special, "c"))
        ids = encode_chat(tokenizer, template, chat, **given)
        harmless = encode_chat(tokenizer, template, calm, **given)
        assert tokenizer.decode(ids, skip_specials=False) == template.render(chat, **given)
        assert list(filter(tokenizer.is_special, ids)) == list(
            filter(tokenizer.is_special, harmless)
        )


def test_an_answer_that_has_begun(family: Family) -> None:
    theirs = AutoTokenizer.from_pretrained(family.path)
    for begun in ("The capital", '{"name": "', "Two\n", "a <|im_end|>"):
        chat: Chat = [
            {"role": "user", "content": "Go on."},
            {"role": "assistant", "content": begun},
        ]
        ids = encode_chat(family.tokenizer, family.template, chat, continue_final_message=True)
        text = family.tokenizer.decode(ids, skip_specials=False)
        # theirs leaves out white space at the end, as the template may
        expected = theirs.apply_chat_template(chat, tokenize=False, continue_final_message=True)
        assert text.rstrip() == expected.rstrip()
        assert text.endswith(begun)
