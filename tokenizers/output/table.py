"""From a chat template to the syntax of the answers: the marks that a template writes around the
calls and the thinking of a conversation are those that its model writes."""

from __future__ import annotations

from functools import lru_cache

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.output.gemma_calls import GemmaCalls
from edge_llm.tokenizers.output.harmony import Harmony
from edge_llm.tokenizers.output.json_calls import JsonCalls
from edge_llm.tokenizers.output.named_calls import NamedCalls
from edge_llm.tokenizers.output.probe import reads, with_switches, written_turn
from edge_llm.tokenizers.output.syntax import OutputSyntax, ReasoningSyntax, ToolSyntax
from edge_llm.tokenizers.output.xml_calls import XmlCalls

# In the order in which they are tried: texts that a template has all of, and the syntax.
_TOOLS: tuple[tuple[tuple[str, ...], ToolSyntax], ...] = (
    (("<|channel|>", "<|call|>"), Harmony()),  # gpt-oss
    (("<|tool_call>call:",), GemmaCalls("<|tool_call>", "<tool_call|>", '<|"|>')),  # Gemma 4
    (
        ("<start_function_call>",),  # FunctionGemma
        GemmaCalls("<start_function_call>", "<end_function_call>", "<escape>"),
    ),
    (
        ("<|tool|>", "<|/tool|>"),  # Phi-4-mini
        JsonCalls(("<|tool_call|>", "functools"), "<|/tool_call|>", before="[", after="]"),
    ),
    (
        ("<|START_ACTION|>", "<|END_ACTION|>"),  # Command R7B, Command A
        JsonCalls(
            ("<|START_ACTION|>",),
            "<|END_ACTION|>",
            name="tool_name",
            arguments="parameters",
            head=r'"\"tool_call_id\": \"" /[0-9]{1,3}/ "\", "',
            before="[\n    ",
            between=",\n    ",
            after="\n]",
        ),
    ),
    (
        ("<tool_call>", "<function=", "<parameter="),  # Qwen3-Coder, Qwen3.5, Nemotron 3
        XmlCalls(
            "<tool_call>", "</tool_call>", "<function=", ">", "<parameter=", ">", "</parameter>",
            end="</function>", pad="\n",
        ),
    ),
    (
        ("<seed:tool_call>",),  # Seed-OSS
        XmlCalls(
            "<seed:tool_call>", "</seed:tool_call>", "<function=", ">", "<parameter=", ">",
            "</parameter>", end="</function>",
        ),
    ),
    (
        ("<minimax:tool_call>",),  # MiniMax-M2
        XmlCalls(
            "<minimax:tool_call>", "</minimax:tool_call>", '<invoke name="', '">',
            '<parameter name="', '">', "</parameter>", end="</invoke>", several=True,
        ),
    ),
    (
        ("<tool_call>", "<arg_key>"),  # GLM 4.5 to 4.7
        XmlCalls(
            "<tool_call>", "</tool_call>", "", "\n", "<arg_key>", "</arg_key>", "</arg_value>",
            value_open="<arg_value>",
        ),
    ),
    (
        ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),  # Mistral Small 3.2
        NamedCalls("[TOOL_CALLS]", "[ARGS]", identity="[CALL_ID]"),
    ),
    (("[TOOL_CALLS]", "[ARGS]"), NamedCalls("[TOOL_CALLS]", "[ARGS]")),  # Mistral of 2025
    (
        ("[TOOL_CALLS]",),  # Mistral before
        JsonCalls(
            ("[TOOL_CALLS]",),
            None,
            tail=r'(", \"id\": \"" /[a-zA-Z0-9]{9}/ "\"")?',
            before="[",
            after="]",
        ),
    ),
    (
        ("<|tool_call_begin|>", "<|tool_call_argument_begin|>"),  # Kimi K2
        NamedCalls(
            "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>",
            around=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            prefix="functions.", suffix=":[0-9]+",
        ),
    ),
    (
        ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "```json"),  # DeepSeek V3, R1  # noqa: RUF001
        NamedCalls(
            "<｜tool▁call▁begin｜>", "\n```json\n", "<｜tool▁call▁end｜>",  # noqa: RUF001
            around=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),  # noqa: RUF001
            prefix="function<｜tool▁sep｜>", between="\n",  # noqa: RUF001
        ),
    ),
    (
        ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"),  # DeepSeek V3.1  # noqa: RUF001
        NamedCalls(
            "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",  # noqa: RUF001
            around=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),  # noqa: RUF001
        ),
    ),
    (
        ("<tool_call>", "</tool_call>"),  # Qwen2.5, Qwen3, Hermes, SmolLM3, Granite 4
        JsonCalls(
            ("<tool_call>",), "</tool_call>", before="\n", between="\n", after="\n", repeat=True
        ),
    ),
    (("<function=", "</function>"), NamedCalls("<function=", ">", "</function>")),  # Functionary
    (
        ("<tool_calls>", "</tool_calls>"),  # Jamba, Apriel
        JsonCalls(("<tool_calls>",), "</tool_calls>", before="[", after="]"),
    ),
    (
        ('{"name": ', '"parameters": '),  # Llama 3.1 to 3.3
        JsonCalls(("<|python_tag|>",), None, bare=True, arguments="parameters", between="; "),
    ),
)  # fmt: skip

_REASONING = (
    ("<|channel|>analysis<|message|>", "<|end|>"),  # gpt-oss
    ("<|channel>thought\n", "<channel|>"),  # Gemma 4
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("<think>", "</think>"),
)


@lru_cache(maxsize=64)
def output_syntax_of(template_source: str, added_texts: frozenset[str]) -> OutputSyntax:
    """Return how the answers to prompts of a chat template are to be read.

    A row of the table counts if the template has its marks, and if what it reads in a turn that
    the template writes is the call that was put in; so a template that is not known is never read
    wrongly. One that writes tools but no calls of former turns is taken at its marks.

    Args:
        template_source: the jinja2 text.
        added_texts: the texts of the tokenizer's added tokens, which tell of thinking where a
            template does not mention it.
    """
    try:
        template = ChatTemplate(template_source, bos="<s>", eos="</s>")
    except TemplateError:
        return OutputSyntax()
    reasoning = None
    for opening, closing in _REASONING:
        written = closing in template_source and (
            opening.rstrip() in template_source or closing == "</think>"
        )
        if written or {opening, closing} <= added_texts:
            reasoning = with_switches(ReasoningSyntax(opening, closing), template)
            break
    rows = [row for marks, row in _TOOLS if all(text in template_source for text in marks)]
    if not rows or not template.takes_tools:
        return OutputSyntax(reasoning)
    turn = written_turn(template)
    for row in rows:
        if turn is None or reads(row, turn):
            return OutputSyntax(reasoning, row)
    return OutputSyntax(reasoning)
