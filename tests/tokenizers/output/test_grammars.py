"""Grammars of calls: what they let a model write is what its parser reads, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import llguidance
import pytest
from answers_read import NOW, TOOLS, WEATHER, offers, read

from edge_llm.errors import RequestError
from edge_llm.parsed import Tool
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.output.syntax import OutputSyntax
from edge_llm.tokenizers.output.table import TOOL_SYNTAXES, output_syntax_of
from edge_llm.tokenizers.readers.convert import from_directory
from edge_llm.tokenizers.tokenizer import Tokenizer

SMALL = Tool(
    "put",
    "",
    {
        "type": "object",
        "properties": {
            "b": {"type": "boolean"},
            "a": {"type": "string", "maxLength": 6, "minLength": 2},
            "n": {"type": "integer", "minimum": 3, "maximum": 40},
            "e": {"enum": ["x", "y z", "</p"]},
            "m": {"anyOf": [{"type": "integer", "maximum": 9, "minimum": 0}, {"type": "null"}]},
            "l": {"$ref": "#/$defs/list"},
            "p": {"type": "string", "pattern": "^[a-c]{1,3}$"},
        },
        "required": ["a", "n"],
        "additionalProperties": False,
        "$defs": {"list": {"type": "array", "items": {"type": "boolean"}}},
    },
)


def no_tokens(text: str) -> int | None:
    return None


class Bytes:
    """Grammars over single bytes: the marks of all syntaxes are plain text."""

    def __init__(self) -> None:
        self.tokens = llguidance.LLTokenizer("byte")

    def matcher(self, lark: str) -> Any:
        grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        assert llguidance.LLMatcher.validate_grammar(grammar, self.tokens) == ""
        matcher = llguidance.LLMatcher(self.tokens, grammar)
        assert not matcher.is_error(), matcher.get_error()
        return matcher

    def accepts(self, lark: str, text: str) -> bool:
        data = list(text.encode())
        matcher = self.matcher(lark)
        return bool(matcher.try_consume_tokens(data) == len(data)) and bool(matcher.is_accepting())

    def walk(self, lark: str, dice: random.Random, most: int) -> str | None:
        """A text of the grammar, by chance; None where it did not end in time."""
        matcher = self.matcher(lark)
        data: list[int] = []
        while len(data) < most:
            mask = matcher.compute_logit_bias()
            if data and matcher.is_accepting() and dice.random() < 0.7:
                break
            choices = [token for token in range(256) if mask[token]]
            choices = [token for token in choices if token < 0x80] or choices
            if not choices:
                break
            kind = [token for token in choices if chr(token) in '"</}]| \n'] or choices
            token = dice.choice(kind if dice.random() < 0.5 else choices)
            data.append(token)
            assert matcher.consume_token(token)
        return bytes(data).decode() if matcher.is_accepting() else None


@pytest.fixture(scope="module")
def characters() -> Bytes:
    return Bytes()


@pytest.mark.parametrize("name", TOOL_SYNTAXES)
def test_what_a_grammar_allows_is_what_the_parser_reads(name: str, characters: Bytes) -> None:
    row = TOOL_SYNTAXES[name]
    tools = [SMALL, NOW]
    schemas = {tool.name: tool.parameters for tool in tools}
    dice = random.Random(name)
    several = complete = 0
    for _ in range(12):
        for parallel in (True, False):
            grammar = row.grammar(tools, parallel=parallel, token_id=no_tokens)
            text = characters.walk(grammar.start, dice, 600)
            if text is None:
                continue
            answer = read(OutputSyntax(None, row), text, tools=tools)
            assert answer.content == "", text
            assert answer.calls, text
            assert parallel or len(answer.calls) == 1
            for call, arguments in answer.values:
                jsonschema.validate(arguments, schemas[call])
            several += len(answer.calls) > 1
            complete += 1
    assert complete >= 12
    # Harmony's answers end with a call; in DeepSeek's a second one begins with a letter that this
    # walk does not take.
    assert several or name.startswith(("harmony", "deepseek"))


@pytest.mark.parametrize("name", TOOL_SYNTAXES)
def test_after_a_trigger(name: str, characters: Bytes) -> None:
    row = TOOL_SYNTAXES[name]
    dice = random.Random(name)
    grammar = row.grammar([SMALL, NOW], parallel=False, token_id=no_tokens)
    assert grammar.after is not None
    found = 0
    for _ in range(12):
        text = characters.walk(grammar.after, dice, 600)
        if text is not None:
            whole = grammar.triggers[0] + text
            answer = read(OutputSyntax(None, row), whole, tools=[SMALL, NOW])
            assert len(answer.values) == 1, whole
            assert answer.content == ""
            found += 1
    assert found >= 6


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def coder(name: str, arguments: str) -> str:
    parts = (
        f"<parameter={key}>\n{value if isinstance(value, str) else json.dumps(value)}\n"
        "</parameter>\n"
        for key, value in json.loads(arguments).items()
    )
    return f"<tool_call>\n<function={name}>\n{''.join(parts)}</function>\n</tool_call>"


def bare(name: str, arguments: str) -> str:
    return f'{{"name": "{name}", "parameters": {arguments}}}'


GOOD = '{"city": "Köln", "days": 2}'


@pytest.mark.parametrize(
    ("name", "write", "between"),
    [("hermes", hermes, "\n"), ("qwen3-coder", coder, "\n"), ("llama3", bare, "; ")],
)
def test_only_the_tools_as_they_are(
    name: str, write: Callable[[str, str], str], between: str, characters: Bytes
) -> None:
    def accepts(text: str, *, parallel: bool = True, tools: list[Tool] = TOOLS) -> bool:
        row = TOOL_SYNTAXES[name]
        grammar = row.grammar(tools, parallel=parallel, token_id=no_tokens)
        return characters.accepts(grammar.start, text)

    one = write(WEATHER.name, GOOD)
    assert accepts(one)
    assert accepts(write("now-2", "{}"))
    assert accepts(one + between + write("now-2", "{}"))
    assert not accepts(one + between + one, parallel=False)
    assert not accepts(write("now-2", "{}"), tools=[WEATHER])  # one by name
    assert not accepts(write("other", GOOD))
    assert not accepts(write(WEATHER.name, '{"days": 2}'))  # "city" is required
    assert not accepts(write(WEATHER.name, '{"city": "a", "days": "two"}'))
    assert not accepts(write(WEATHER.name, '{"city": "a", "more": 1}'))
    assert not accepts("Sure. " + one)
    assert not accepts("")


@pytest.fixture(scope="module")
def qwen(qwen3_tokenizer_dir: Path) -> tuple[Tokenizer, Any]:
    document = from_directory(qwen3_tokenizer_dir)
    tokens = llguidance.LLTokenizer(str(qwen3_tokenizer_dir / "tokenizer.json"))
    return Tokenizer(document.json, document.facts), tokens


@pytest.mark.parametrize("name", ["qwen3", "qwen2_5", "Qwen3-Coder", "qwen3_5_think"])
def test_real_tokens_of_a_template(
    name: str, qwen: tuple[Tokenizer, Any], chat_template_source: Callable[[str], str]
) -> None:
    tokenizer, tokens = qwen
    tokenizer = tokenizer.with_specials(tokenizer.added_texts)
    source = chat_template_source(name)
    syntax = output_syntax_of(source, tokenizer.added_texts)
    arguments = {"city": 'Köln "<1>"\n\\x, {y}', "days": 2, "dry": True, "tags": ["a", "b c"]}
    calls = [
        {"id": "a", "type": "function", "function": {"name": WEATHER.name, "arguments": of}}
        for of in (arguments, {"city": "Rom"})
    ]
    text = ChatTemplate(source, bos="", eos="").render(
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": calls},
        ],
        tools=offers(TOOLS),
        add_generation_prompt=False,
    )
    begin = text.rindex("<|im_start|>assistant")
    turn = text[text.index("<tool_call>", begin) : text.rindex("<|im_end|>")]
    ids = tokenizer.encode(turn, add_bos=False, specials=True)
    token_id = tokenizer.special_texts.get
    assert token_id("<tool_call>") in ids
    grammar = syntax.tool_grammar(TOOLS, parallel=True, token_id=token_id)
    for lark, given in (
        (grammar.start, ids),
        (grammar.after, ids[1 : ids.index(token_id("</tool_call>") or 0) + 1]),
    ):
        assert lark is not None
        matcher = llguidance.LLMatcher(tokens, llguidance.LLMatcher.grammar_from_lark(lark))
        for place, token in enumerate(given):
            assert matcher.compute_logit_bias()[token], tokenizer.decode(given[: place + 1])
            assert matcher.consume_token(token)
        assert matcher.is_accepting()


def test_llama_tokens_of_a_template(llama3_tokenizer_dir: Path) -> None:
    document = from_directory(llama3_tokenizer_dir)
    tokenizer = Tokenizer(document.json, document.facts)
    tokens = llguidance.LLTokenizer(str(llama3_tokenizer_dir / "tokenizer.json"))
    assert document.chat_template is not None
    syntax = output_syntax_of(document.chat_template, tokenizer.added_texts)
    grammar = syntax.tool_grammar(TOOLS, parallel=False, token_id=tokenizer.special_texts.get)
    assert grammar.at_start
    lark = llguidance.LLMatcher.grammar_from_lark(grammar.start)
    matcher = llguidance.LLMatcher(tokens, lark)
    ids = tokenizer.encode(bare(WEATHER.name, GOOD), add_bos=False)
    assert matcher.try_consume_tokens(ids) == len(ids)
    assert matcher.is_accepting()


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([], "tools"),
        ([Tool("a b")], "tools[0].function.name"),
        ([Tool("a"), Tool("b" * 65)], "tools[1].function.name"),
        ([Tool("a"), Tool("a")], "tools[1].function.name"),
        ([Tool("a", None, {"type": "array"})], "tools[0].function.parameters"),
    ],
)
def test_tools_that_no_grammar_takes(tools: list[Tool], param: str) -> None:
    for row in TOOL_SYNTAXES.values():
        with pytest.raises(RequestError) as caught:
            row.grammar(tools, parallel=True, token_id=no_tokens)
        assert caught.value.param == param


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"patternProperties": {}}, "patternProperties"),
        ({"properties": {"a": {"type": "string", "format": "idn-email"}}}, "format idn-email"),
        ({"properties": {"a": {"type": "string", "contentEncoding": "b"}}}, "contentEncoding"),
        ({"properties": {}, "required": ["a"]}, "required"),
        ({"properties": {"a>": {}}}, "properties/a>"),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}}, r"\$ref"),
    ],
)
def test_keywords_that_elements_cannot_keep(schema: dict[str, Any], keyword: str) -> None:
    with pytest.raises(RequestError, match=f"'{keyword}' cannot be enforced") as caught:
        TOOL_SYNTAXES["qwen3-coder"].grammar(
            [Tool("f", None, schema)], parallel=False, token_id=no_tokens
        )
    assert caught.value.param == "tools[0].function.parameters"


def test_a_schema_that_contains_itself(characters: Bytes) -> None:
    node = {
        "type": "object",
        "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
        "required": ["v"],
    }
    tool = Tool("f", None, {"properties": {"n": node}, "$defs": {"node": node}})
    lark = TOOL_SYNTAXES["gemma4"].grammar([tool], parallel=False, token_id=no_tokens).start
    begin, end = "<|tool_call>call:f{n:", "}<tool_call|>"
    assert characters.accepts(lark, begin + "{next:{next:{v:1},v:2},v:3}" + end)
    assert not characters.accepts(lark, begin + "{next:{next:{v:1}},v:3}" + end)


def test_without_a_syntax() -> None:
    with pytest.raises(RequestError, match="no syntax that is known") as caught:
        OutputSyntax().tool_grammar(TOOLS, parallel=True, token_id=no_tokens)
    assert caught.value.param == "tools"
