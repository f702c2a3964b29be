"""Calls of the functions of the Berkeley Function Calling Leaderboard, which a model that knows
nothing is made to write: the name, and arguments that the schema allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from random_json import RandomModel, check

from edge_llm.errors import RequestError
from edge_llm.parsed import Tool, ToolCallDelta, whole_calls
from edge_llm.runner.evaluation.tasks.bfcl import json_schema_of
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.guidance.vocabulary import Vocabulary
from edge_llm.tokenizers.output.syntax import OutputSyntax
from edge_llm.tokenizers.output.table import TOOL_SYNTAXES
from edge_llm.tokenizers.readers.convert import from_directory
from edge_llm.tokenizers.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(qwen3_tokenizer_dir: Path) -> Tokenizer:
    document = from_directory(qwen3_tokenizer_dir)
    return Tokenizer(document.json, document.facts)


@pytest.mark.parametrize("share", [120, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("syntax", ["hermes", "llama3"])
def test_every_call_is_well_formed(
    tokenizer: Tokenizer, bfcl_parameters: list[dict[str, Any]], syntax: str, share: int
) -> None:
    end_ids = [151643, 151645]
    guide = Guide(lambda: Vocabulary.of(tokenizer, size=151936, end_ids=end_ids))
    model = RandomModel(guide.vocabulary)
    output = OutputSyntax(tools=TOOL_SYNTAXES[syntax])
    refused: list[str] = []
    cut = 0
    for number, parameters in enumerate(bfcl_parameters[::share]):
        tool = Tool(f"function_{number}", None, json_schema_of(parameters))
        try:
            grammar = output.tool_grammar([tool], parallel=False, token_id=tokenizer.added_ids.get)
            constraint = guide.constraint(Grammar.lark(grammar.start), "tools")
        except RequestError as error:
            refused.append(str(error))
            continue
        answer = model.answer(constraint, number)
        if answer is None:
            cut += 1
            continue
        parser = output.parser(tools=[tool])
        deltas: list[ToolCallDelta] = []
        for parsed in (parser.text(answer.decode()), parser.finish()):
            assert not parsed.content.strip()
            deltas += parsed.tool_calls
        [call] = whole_calls(deltas)
        assert call.name == tool.name
        check(tool.parameters, call.arguments.encode())
    count = len(bfcl_parameters[::share])
    print(f"\n{syntax}: {count} functions, refused {len(refused)}, cut {cut}")
    print("\n".join(refused[:20]))
    assert len(refused) <= 0.01 * count + 1
    assert cut < 0.02 * count + 1
