"""What the scripted model knows: enough for the questions that tests of clients ask.

It reads the prompt as its template wrote it (Qwen3's), as a model does, and knows nothing of the
server or of the clients.
"""

from __future__ import annotations

import json
import re
from typing import Any

# A turn of the conversation: who, and what.
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.S)
_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.S)
_TOOLS = re.compile(r"<tools>\n(.*?)\n</tools>", re.S)

JOKE = {"setup": "Why did the cat sit on the keyboard?", "punchline": "To watch the mouse."}
BONN = {"name": "Bonn", "people": 330_000}
# Patterns of a question and of a function's name, and what is known for the function's parameters:
# it is called with those that it has. "\\1" is a group of the question's pattern.
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    (r"value of magic_function\(3\)", "magic_function", {"input": 3}),
    (r"value of magic_function_no_args", "magic_function_no_args", {}),
    (r"\bBonn\b", "weather", {"city": "Bonn", "location": "Bonn"}),
    (r"\bUlm\b", "weather", {"city": "Ulm", "location": "Ulm"}),
    (r"San Francisco", "weather", {"city": "San Francisco", "location": "San Francisco"}),
    (r"\bBonn\b", "", BONN),
    (r"\bjoke\b", "", JOKE),
    (r"Pirate", "greeting", {"answer_style": "pirate"}),
    (r"customer named '(.*?)'", "customer", {"customer_name": r"\1", "description": "a company"}),
    (r"6 times 7", "multiply", {"a": 6, "b": 7}),
    (r"README", "shell", {"command": ["cat", "README.md"]}),
    (r"README", "Read", {"file_path": "README.md"}),
]
# A pattern of the question, and the text of the answer.
TEXTS: list[tuple[str, str]] = [
    (r"\bjoke\b", json.dumps(JOKE)),
    (r"\bBonn\b", json.dumps(BONN)),
    (r"capital of France", "Paris"),
]
OTHERWISE = "Hello! I am here to help."
ECHO = "Say:\n"  # what comes behind it is the answer


def answer(prompt: str) -> str:
    """Return what the model says next."""
    turns = [(role, text.strip()) for role, text in _TURN.findall(prompt)]
    begun = turns.pop()[1] if turns and turns[-1][0] == "assistant" else ""
    question = next(
        (text for role, text in reversed(turns) if role == "user" and not _RESULT.search(text)), ""
    )
    if question.startswith(ECHO):
        return question.removeprefix(ECHO).removeprefix(begun.rpartition("</think>")[2].strip())
    if found := re.search(r"count to (\d+)", question):
        return " ".join(map(str, range(1, int(found[1]) + 1)))
    thinks = "step by step" in question and "</think>" not in begun
    thought = "<think>\nLet me see.\n</think>\n\n" if thinks else ""
    return thought + _said(turns, question)


def _said(turns: list[tuple[str, str]], question: str) -> str:
    if turns and (results := _RESULT.findall(turns[-1][1])):
        return f"The result is {', '.join(results)}."
    if calls := _calls(question, _tools(turns)):
        texts = [json.dumps(call, ensure_ascii=False) for call in calls]
        return "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in texts)
    for pattern, text in TEXTS:
        if re.search(pattern, question):
            return text
    return OTHERWISE


def _calls(question: str, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    calls = []
    for pattern, name, known in CALLS:
        found = re.search(pattern, question)
        for tool in tools if found else ():
            properties = tool.get("parameters", {}).get("properties", {})
            fits = known.keys() & properties.keys() or not (known or properties)
            if fits and re.search(name, tool["name"]):
                arguments = {
                    key: found.expand(known[key]) if isinstance(known[key], str) else known[key]
                    for key in properties
                    if key in known
                }
                calls.append({"name": tool["name"], "arguments": arguments})
    return calls


def _tools(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    found = _TOOLS.search(turns[0][1]) if turns and turns[0][0] == "system" else None
    return [json.loads(line)["function"] for line in found[1].splitlines()] if found else []
