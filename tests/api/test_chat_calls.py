"""Chats whose answers are held to a form, call tools, think, or go on with what has begun: a random
model writes whatever it may."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel

import edge_llm
from edge_llm.api.answers import Answers
from edge_llm.api.chat import ChatCall, ThinkingOptions
from edge_llm.api.tools import tools_of
from edge_llm.errors import RequestError, TemplateError
from edge_llm.runner.context import Context
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.vocabulary import Vocabulary
from edge_llm.tokenizers.chat.template import ChatTemplate

CHAT = [{"role": "user", "content": "Why is the sky blue?"}]
BEGUN = [*CHAT, {"role": "assistant", "content": '{"color": "bl'}]


class Sky(BaseModel):
    color: Literal["blue", "black", "grey"]
    clouds: int


SCHEMA = Sky.model_json_schema()


def weather(city: Literal["Oslo", "Rome"], days: int = 1) -> str:
    """Tell the weather."""
    return f"{city}: rain for {days} days"


def time(zone: Literal["CET", "UTC"]) -> str:
    """Tell the time."""
    return zone


@pytest.fixture(scope="module")
def llm(tiny_program: Callable[..., Path]) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(tiny_program(max_position_embeddings=2048), threads=1) as loaded:
        yield loaded


def sampled(**options: Any) -> dict[str, Any]:
    return {"temperature": 1.0, "seed": 5, "max_tokens": 200, **options}


def test_an_answer_in_the_form_of_a_model(llm: edge_llm.LLM) -> None:
    answer = llm.chat(CHAT, response_format=Sky, **sampled())
    assert answer.finish_reason == "stop"
    assert list(json.loads(answer.text)) == ["color", "clouds"]
    Sky.model_validate_json(answer.text)
    for several in llm.chat(CHAT, response_format=Sky, n=3, **sampled(speculation="ngram")):
        Sky.model_validate_json(several.text)


def test_forms_of_prompts(llm: edge_llm.LLM) -> None:
    assert llm.generate("Yes or no?", choice=["yes", "no"], **sampled()).text in ("yes", "no")
    assert llm.generate("A year:", regex="[12][0-9]{3}", **sampled()).text.isdecimal()
    for answer in llm.generate(["a", "b"], grammar='start: "x" "y"?', n=2, **sampled()):
        assert answer.text in ("x", "xy")


@pytest.mark.parametrize("choice", ["required", "time"])
def test_calls_that_are_asked_for_are_made(llm: edge_llm.LLM, choice: str) -> None:
    tools = {tool.name: tool for tool in tools_of([weather, time])}
    for seed in range(3):
        answer = llm.chat(CHAT, tools=[weather, time], tool_choice=choice, **sampled(seed=seed))
        assert answer.tool_calls
        if answer.finish_reason != "length":
            assert answer.finish_reason == "tool_calls"
            for call in answer.tool_calls:
                assert choice in ("required", call.name)
                jsonschema.validate(json.loads(call.arguments), tools[call.name].parameters)


def test_one_call_at_a_time(llm: edge_llm.LLM) -> None:
    answer = llm.chat(
        CHAT, tools=[time], tool_choice="required", parallel_tool_calls=False, **sampled()
    )
    assert [call.name for call in answer.tool_calls] == ["time"]
    assert answer.finish_reason == "tool_calls"


def test_calls_and_their_results_are_told_to_a_template_without_tools(llm: edge_llm.LLM) -> None:
    history = [
        *CHAT,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "time", "arguments": '{"zone": "CET"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    text = llm.tokenizer.decode(llm.encode_chat(history), skip_specials=False)
    assert '{"name": "time", "arguments": {"zone": "CET"}}' in text
    assert "noon" in text
    assert llm.chat(history, tools=[time], **sampled(max_tokens=5)).stats.completion_tokens == 5


def test_a_history_may_be_malformed(llm: edge_llm.LLM) -> None:
    """Models write arguments that are no JSON, and clients send back what they got."""
    call = {"id": "x", "type": "function", "function": {"name": "time", "arguments": '{"zone": '}}
    history = [
        {"role": "developer", "content": [{"type": "text", "text": t} for t in ("Be ", "brief")]},
        *CHAT,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "x", "content": None},
        {"role": "assistant", "content": None},
    ]
    text = llm.tokenizer.decode(llm.encode_chat(history), skip_specials=False)
    assert "Be brief" in text
    assert "zone" in text
    assert "None" not in text


def test_no_tool_is_called_where_none_may_be(llm: edge_llm.LLM) -> None:
    with_none = llm.chat(CHAT, tools=[time], tool_choice="none", **sampled(max_tokens=20))
    without = llm.chat(CHAT, **sampled(max_tokens=20))
    assert with_none.token_ids == without.token_ids


def test_an_answer_goes_on(llm: edge_llm.LLM) -> None:
    begun = llm.chat(BEGUN, continue_final_message=True, response_format=Sky, **sampled())
    Sky.model_validate_json(str(BEGUN[-1]["content"]) + begun.text)
    free = llm.chat(BEGUN, continue_final_message=True, **sampled(max_tokens=8))
    ids = llm.encode_chat(BEGUN, continue_final_message=True)
    assert free.token_ids == llm.generate(ids, **sampled(max_tokens=8)).token_ids


def test_an_answer_in_parts_goes_on(llm: edge_llm.LLM) -> None:
    begun = str(BEGUN[-1]["content"])
    parts = [{"type": "text", "text": part} for part in (begun[:4], begun[4:])]
    messages: list[dict[str, Any]] = [*CHAT, {"role": "assistant", "content": parts}]
    answer = llm.chat(messages, continue_final_message=True, response_format=Sky, **sampled())
    Sky.model_validate_json(begun + answer.text)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [time], "tool_choice": "weather"}, "tool_choice"),
        ({"tools": [{"name": "no spaces"}], "tool_choice": "required"}, "tools[0].function.name"),
        (
            {
                "tools": [time, {"name": "list", "parameters": {"type": "array"}}],
                "tool_choice": "list",
            },
            "tools[1].function.parameters",
        ),
        ({"enable_thinking": True}, "enable_thinking"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"continue_final_message": True}, "messages"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"$ref": "http://x"}},
                }
            },
            "response_format",
        ),
        ({"regex": "("}, "regex"),
        ({"stpo": "x"}, "stpo"),
    ],
)
def test_what_cannot_be_honoured(llm: edge_llm.LLM, options: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        llm.chat(CHAT, **options)
    assert caught.value.param == param


def test_a_choice_of_no_tool_says_which_there_are(llm: Any) -> None:
    with pytest.raises(RequestError, match=r"'weather', expected .* name: time"):
        llm.chat(CHAT, tools=[time], tool_choice="weather")


def test_what_has_begun_must_be_allowed(llm: edge_llm.LLM) -> None:
    begun = [*CHAT, {"role": "assistant", "content": "Well, "}]
    with pytest.raises(RequestError, match="does not allow"):
        llm.chat(begun, continue_final_message=True, response_format=Sky)


def test_no_thinking_is_what_a_model_without_it_does(llm: edge_llm.LLM) -> None:
    plain = llm.chat(CHAT, **sampled(max_tokens=8))
    same = llm.chat(CHAT, enable_thinking=False, thinking_budget=3, **sampled(max_tokens=8))
    assert plain.token_ids == same.token_ids


def test_a_prepared_model_has_its_vocabulary(
    llm: edge_llm.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm.prepare()
    monkeypatch.setattr(Vocabulary, "of", None)  # it is not made again
    assert llm.chat(CHAT, choice=["yes"], **sampled()).text == "yes"


@pytest.mark.parametrize("wanted", [True, False, "x"])
def test_the_variable_of_other_models_does_no_harm(llm: edge_llm.LLM, wanted: Any) -> None:
    plain = llm.chat(CHAT, **sampled(max_tokens=8))
    options = {"chat_template_kwargs": {"enable_thinking": wanted}}
    assert llm.chat(CHAT, **options, **sampled(max_tokens=8)).token_ids == plain.token_ids


def test_a_tool_without_a_schema_takes_no_arguments(llm: edge_llm.LLM) -> None:
    for tool in ({"name": "now"}, {"name": "now", "parameters": {}}):
        options = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
        [call] = llm.chat(CHAT, **options, **sampled()).tool_calls
        assert json.loads(call.arguments) == {}


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)


def answered(
    llm: edge_llm.LLM, template: str, call: ChatCall, **params: Any
) -> edge_llm.Completion:
    answers = Answers(
        llm.tokenizer, ChatTemplate(template, bos=None, eos=None), Context(llm.context), llm.guide
    )
    jobs = answers.jobs(call, llm.default_params(**sampled(**params)), None)
    with edge_llm.Stream(llm.submit, jobs) as stream:
        return stream.completions()[0]


def thinking_answer(llm: edge_llm.LLM, call: ChatCall, **params: Any) -> edge_llm.Completion:
    return answered(llm, THINKING, call, **params)


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_thinking_ends_at_its_budget_and_then_the_form_holds(
    llm: edge_llm.LLM, budget: int
) -> None:
    thinking = ThinkingOptions(budget=budget)
    call = ChatCall(messages=CHAT, grammar=Grammar.json_schema(SCHEMA), thinking=thinking)
    answer = thinking_answer(llm, call)
    Sky.model_validate_json(answer.text)
    closing = len(llm.tokenizer.encode("</think>", add_bos=False))
    assert budget <= answer.stats.reasoning_tokens <= budget + closing + 3  # 3: of a character
    assert bool(answer.reasoning.strip()) <= (budget > 0)


def test_thinking_can_be_turned_off(llm: edge_llm.LLM) -> None:
    call = ChatCall(
        messages=CHAT,
        grammar=Grammar.json_schema(SCHEMA),
        thinking=ThinkingOptions(enabled=False, budget=9),
    )
    answer = thinking_answer(llm, call)
    Sky.model_validate_json(answer.text)
    assert (answer.reasoning, answer.stats.reasoning_tokens) == ("", 0)


def test_free_thinking_is_told_apart(llm: edge_llm.LLM) -> None:
    answer = thinking_answer(llm, ChatCall(messages=CHAT), max_tokens=12)
    assert answer.stats.reasoning_tokens == 12
    assert answer.text == ""
    budget = ChatCall(messages=CHAT, thinking=ThinkingOptions(budget=4))
    answer = thinking_answer(llm, budget, max_tokens=40, ignore_eos=True)
    assert answer.text
    assert answer.stats.reasoning_tokens < 40


def test_no_thinking_begins_within_content(llm: edge_llm.LLM) -> None:
    call = ChatCall(
        messages=BEGUN, grammar=Grammar.json_schema(SCHEMA), continue_final_message=True
    )
    wanted = llm.tokenizer.encode("<think>", add_bos=False, specials=True, continues=True)
    answer = thinking_answer(llm, call, logit_bias={wanted[0]: 100})
    Sky.model_validate_json(str(BEGUN[-1]["content"]) + answer.text)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_goes_on(llm: edge_llm.LLM, name: str) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n"
        "{{ m.reasoning_content }}\n</think>\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    messages = [*CHAT, {"role": "assistant", "content": "", name: "Well, "}]
    call = ChatCall(messages=messages, continue_final_message=True)
    answer = answered(llm, template, call, max_tokens=8)
    assert answer.reasoning
    assert (answer.text, answer.stats.reasoning_tokens) == ("", 8)


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_tools_are_told_to_a_template_that_refuses_system_messages(llm: edge_llm.LLM) -> None:
    call = ChatCall(
        messages=CHAT, tools=tools_of([time]), tool_choice="required", parallel_tool_calls=False
    )
    answer = answered(llm, NO_SYSTEM, call)
    assert [one.name for one in answer.tool_calls] == ["time"]


def test_a_call_that_is_cut_off_is_no_content(llm: edge_llm.LLM) -> None:
    call = ChatCall(messages=CHAT, tools=tools_of([time]), tool_choice="required")
    for most in range(1, 60, 3):
        answer = answered(llm, NO_SYSTEM, call, max_tokens=most)
        assert answer.text == ""


def test_content_stands_behind_thinking_as_in_the_template(llm: edge_llm.LLM) -> None:
    template = THINKING.replace(
        "{{ m.content }}",
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
        "{{ m.content }}",
    )
    call = ChatCall(
        messages=CHAT,
        grammar=Grammar.json_schema(SCHEMA),
        thinking=ThinkingOptions(budget=3),
    )
    answer = answered(llm, template, call)
    Sky.model_validate_json(answer.text)
    written = llm.tokenizer.decode(answer.token_ids, skip_specials=False)
    assert written.partition("</think>")[2].startswith('\n\n{"color"')


FORMER = [
    {"role": "user", "content": "How warm?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Rom"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "21"},
]
SILENT = (
    "{% if tools %}<|im_start|>system\n{{ offer }}{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


def test_calls_of_former_turns_that_the_template_leaves_out(llm: edge_llm.LLM) -> None:
    known = SILENT.replace("{{ offer }}", "List of tools: ")
    for template, written in ((known, '[weather(city="Rom")]'), (SILENT, None)):
        answers = Answers(
            llm.tokenizer,
            ChatTemplate(template, bos=None, eos=None),
            Context(llm.context),
            llm.guide,
        )
        options = {"tools": None, "add_generation_prompt": False}
        assert answers.encode(FORMER[:1], **options)
        if written is None:
            with pytest.raises(TemplateError, match="leaves out the calls of former turns"):
                answers.encode(FORMER, **options)
            continue
        ids = answers.encode(FORMER, **options)
        text = llm.tokenizer.decode(ids, skip_specials=False)
        assert f"<|tool_call_start|>{written}<|tool_call_end|><|im_end|>" in text
