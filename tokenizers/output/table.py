"""From a chat template to the syntax of the answers: the marks that a template writes around the
calls and the thinking of a conversation are those that its model writes."""

from __future__ import annotations

from functools import lru_cache

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.output.gemma_calls import GemmaCalls
from edge_llm.tokenizers.output.harmony import CONTENT_HEAD, Harmony
from edge_llm.tokenizers.output.json_calls import JsonCalls
from edge_llm.tokenizers.output.named_calls import NamedCalls
from edge_llm.tokenizers.output.probe import TOOL, reads, with_switches, written_turn
from edge_llm.tokenizers.output.python_calls import PythonCalls
from edge_llm.tokenizers.output.syntax import OutputSyntax, ReasoningSyntax, ToolSyntax
from edge_llm.tokenizers.output.xml_calls import XmlCalls


def _deepseek(name: str) -> str:
    """Return the text of one of DeepSeek's control tokens."""
    return "<\uff5c" + name.replace(" ", "\u2581") + "\uff5c>"


# The syntaxes of calls by name.
TOOL_SYNTAXES: dict[str, ToolSyntax] = {
    "harmony": Harmony(),  # gpt-oss
    "gemma4": GemmaCalls("<|tool_call>", "<tool_call|>", '<|"|>'),
    "function-gemma": GemmaCalls("<start_function_call>", "<end_function_call>", "<escape>"),
    "phi4-mini": JsonCalls(
        ("<|tool_call|>", "functools"), "<|/tool_call|>", before="[", after="]"
    ),
    "granite3": JsonCalls(("<|tool_call|>",), None, before="[", after="]"),  # Granite 3.3
    "command": JsonCalls(  # Command R7B and A
        ("<|START_ACTION|>",),
        "<|END_ACTION|>",
        name="tool_name",
        arguments="parameters",
        head=r'"\"tool_call_id\": \"" /[0-9]{1,3}/ "\", "',
        before="[\n    ",
        between=",\n    ",
        after="\n]",
    ),
    "qwen3-coder": XmlCalls(  # Qwen3.5 and Nemotron 3 too
        "<tool_call>", "</tool_call>", "<function=", ">", "<parameter=", ">", "</parameter>",
        end="</function>", pad="\n",
    ),
    "seed": XmlCalls(
        "<seed:tool_call>", "</seed:tool_call>", "<function=", ">", "<parameter=", ">",
        "</parameter>", end="</function>",
    ),
    "minimax": XmlCalls(  # MiniMax M2
        "<minimax:tool_call>", "</minimax:tool_call>", '<invoke name="', '">',
        '<parameter name="', '">', "</parameter>", end="</invoke>", several=True,
    ),
    "glm": XmlCalls(  # GLM 4.5 and 4.6
        "<tool_call>", "</tool_call>", "", "\n", "<arg_key>", "</arg_key>", "</arg_value>",
        value_open="<arg_value>",
    ),
    "glm-4.7": XmlCalls(
        "<tool_call>", "</tool_call>", "", "", "<arg_key>", "</arg_key>", "</arg_value>",
        value_open="<arg_value>", line="",
    ),
    "minicpm": XmlCalls(  # MiniCPM 5
        "", "", '<function name="', '">', '<param name="', '">', "</param>", end="</function>",
        line="", quotes=("<![CDATA[", "]]>"),
    ),
    "mistral-small": NamedCalls("[TOOL_CALLS]", "[ARGS]", identity="[CALL_ID]"),  # 3.2
    "mistral-args": NamedCalls("[TOOL_CALLS]", "[ARGS]"),  # Devstral, Ministral 3
    "mistral": JsonCalls(  # Mistral before
        ("[TOOL_CALLS]",),
        None,
        tail=r'(", \"id\": \"" /[a-zA-Z0-9]{9}/ "\"")?',
        before="[",
        after="]",
    ),
    "kimi": NamedCalls(  # Kimi K2
        "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>",
        around=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        prefix="functions.", suffix=":[0-9]+",
    ),
    "deepseek-v3": NamedCalls(  # DeepSeek V3 and R1
        _deepseek("tool call begin"), "\n```json\n", _deepseek("tool call end"),
        around=(_deepseek("tool calls begin"), _deepseek("tool calls end")),
        prefix="function" + _deepseek("tool sep"), between="\n", after="\n```",
    ),
    "deepseek-v3.1": NamedCalls(
        _deepseek("tool call begin"), _deepseek("tool sep"), _deepseek("tool call end"),
        around=(_deepseek("tool calls begin"), _deepseek("tool calls end")),
    ),
    "hermes": JsonCalls(  # Qwen2.5, Qwen3, SmolLM3, Granite 4 too
        ("<tool_call>",), "</tool_call>", before="\n", between="\n", after="\n", repeat=True
    ),
    "lfm2": PythonCalls("<|tool_call_start|>", "<|tool_call_end|>"),
    "functionary": NamedCalls("<function=", ">", "</function>"),
    "tool-calls": JsonCalls(("<tool_calls>",), "</tool_calls>", before="[", after="]"),  # Jamba
    "llama3": JsonCalls(  # Llama 3.1 to 3.3
        ("<|python_tag|>",), None, bare=True, arguments="parameters", between="; "
    ),
}  # fmt: skip

# In the order in which they are tried: a syntax, and texts that a template and the turn that it
# writes for `probe.py` have all of.
_ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("harmony", ("<|channel|>", "<|call|>")),
    ("gemma4", ("<|tool_call>call:",)),
    ("function-gemma", ("<start_function_call>",)),
    ("phi4-mini", ("<|tool|>", "<|/tool|>")),
    ("granite3", ("<|tool_call|>", "available_tools")),
    ("command", ("<|START_ACTION|>", "<|END_ACTION|>")),
    ("qwen3-coder", ("<tool_call>", "<function=", "<parameter=")),
    ("seed", ("<seed:tool_call>",)),
    ("minimax", ("<minimax:tool_call>",)),
    ("glm-4.7", (f"<tool_call>{TOOL.name}<arg_key>",)),
    ("glm", ("<tool_call>", "<arg_key>")),
    ("minicpm", ('<function name="', '<param name="')),
    ("mistral-small", ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")),
    ("mistral-args", ("[TOOL_CALLS]", "[ARGS]")),
    ("mistral", ("[TOOL_CALLS]",)),
    ("kimi", ("<|tool_call_begin|>", "<|tool_call_argument_begin|>")),
    ("deepseek-v3", (_deepseek("tool call begin"), _deepseek("tool sep"), "```json")),
    ("deepseek-v3.1", (_deepseek("tool call begin"), _deepseek("tool sep"))),
    ("lfm2", ("<|tool_call_start|>", "<|tool_call_end|>")),
    ("lfm2", ("List of tools: ", "<|im_start|>")),  # templates that write no calls
    ("hermes", ("<tool_call>", "</tool_call>")),
    ("functionary", ("<function=", "</function>")),
    ("tool-calls", ("<tool_calls>", "</tool_calls>")),
    ("llama3", ('{"name": ', '"parameters": ')),
)

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
            reasoning = ReasoningSyntax(opening, closing, mentioned=written)
            reasoning = with_switches(reasoning, template)
            break
    turn = written_turn(template) if template.takes_tools else None
    for name, marks in _ROWS if template.takes_tools else ():
        if all(text in template_source + (turn or "") for text in marks):
            row = TOOL_SYNTAXES[name]
            if turn is None or reads(row, turn):
                return OutputSyntax(reasoning, row, CONTENT_HEAD if name == "harmony" else "")
    return OutputSyntax(reasoning)
