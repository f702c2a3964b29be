"""``edge-llm run``: one prompt, one answer."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import check_text, print_json, say
from edge_llm.cli.programs import (
    add_loading_arguments,
    add_model_argument,
    loading_options,
    resolve_program,
)
from edge_llm.cli.sampling import add_sampling_arguments, sampling_params

if TYPE_CHECKING:
    from edge_llm.api import LLM, Stream


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "run",
        help="answer one prompt",
        description="Answer one prompt. stdout is the answer alone; '-' reads the prompt from "
        "stdin.",
    )
    add_model_argument(parser, positional=False)
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
    check_text(prompt)
    check_text(arguments.system or "")
    path = resolve_program(arguments.model)

    from edge_llm.api import load

    with load(path, max_sequences=1, **loading_options(arguments)) as llm:
        pieces = _stream(llm, prompt, arguments)
        if arguments.json:
            answer = pieces.completions()[0]
            print_json(
                {
                    "text": answer.text,
                    "token_ids": answer.token_ids,
                    "finish_reason": answer.finish_reason,
                    "stats": answer.stats.as_dict(),
                }
            )
            return 0
        for piece in pieces:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
            if piece.stats:
                sys.stdout.write("\n")
                say(piece.stats.summary())
    return 0


def _stream(llm: LLM, prompt: str, arguments: argparse.Namespace) -> Stream:
    params = sampling_params(llm, arguments)
    if arguments.raw:
        return llm.stream(prompt, params)
    messages = [{"role": "user", "content": prompt}]
    if arguments.system is not None:
        messages.insert(0, {"role": "system", "content": arguments.system})
    return llm.chat(messages, params, stream=True)
