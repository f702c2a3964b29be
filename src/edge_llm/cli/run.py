"""``edge-llm run``: one prompt, one answer."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import print_json, say
from edge_llm.cli.programs import (
    add_loading_arguments,
    add_model_argument,
    loading_options,
    resolve_program,
)
from edge_llm.cli.sampling import add_sampling_arguments, sampling_params

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_llm.api import LLM, Piece


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "run",
        help="answer one prompt",
        description="Answer one prompt. stdout is the answer alone; '-' reads the prompt from "
        "stdin.",
    )
    add_model_argument(parser)
    parser.add_argument("prompt", help="the prompt, or - for stdin")
    parser.add_argument("--raw", action="store_true", help="no chat template: continue the text")
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    add_loading_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print text, token ids and statistics as JSON"
    )
    add_sampling_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    path = resolve_program(arguments.model)

    from edge_llm.api import load

    with load(path, max_sequences=1, **loading_options(arguments)) as llm:
        text: list[str] = []
        token_ids: list[int] = []
        last: Piece | None = None
        for piece in _pieces(llm, prompt, arguments):
            text.append(piece.text)
            token_ids.extend(piece.token_ids)
            if not arguments.json:
                sys.stdout.write(piece.text)
                sys.stdout.flush()
            last = piece
    assert last is not None  # a stream ends with a piece that says why
    if arguments.json:
        print_json(
            {
                "text": "".join(text),
                "token_ids": token_ids,
                "finish_reason": last.finish_reason,
                "stats": last.stats.as_dict() if last.stats else None,
            }
        )
        return 0
    sys.stdout.write("\n")
    if last.stats:
        say(last.stats.summary())
    return 0


def _pieces(llm: LLM, prompt: str, arguments: argparse.Namespace) -> Iterator[Piece]:
    params = sampling_params(llm, arguments)
    if arguments.raw:
        return llm.stream(prompt, params)
    messages = [{"role": "user", "content": prompt}]
    if arguments.system is not None:
        messages.insert(0, {"role": "system", "content": arguments.system})
    return llm.chat(messages, params, stream=True)
