"""``edge-llm run``: one prompt, one answer."""

from __future__ import annotations

import argparse
import json
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import check_text, print_json, say
from edge_llm.cli.loading import add_loading_arguments, loading_options, one_adapter
from edge_llm.cli.programs import add_model_argument, resolve_program
from edge_llm.cli.sampling import add_sampling_arguments, sampling_params
from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.api import LLM, Stream

_MAX_SCHEMA_BYTES = 2**20
_PATIENCE_SECONDS = 1.0


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "run",
        help="answer one prompt",
        description="Answer one prompt. What is piped in comes behind the prompt, or is it: "
        "`edge-llm run 'Summarise this' < report.txt`. Standard input that is no terminal is read "
        "to its end: `</dev/null` keeps loops and programs from giving any. stdout is the answer "
        "alone.",
    )
    add_model_argument(parser, positional=False)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[MODEL] [PROMPT]",
        help="the prompt, or a model and the prompt; one word that names a model is a model",
    )
    parser.add_argument("--raw", action="store_true", help="no chat template: continue the text")
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument(
        "--schema",
        metavar="FILE|JSON",
        help="the answer is JSON of this JSON schema, given in a file or here",
    )
    add_loading_arguments(parser, adapters="it answers")
    parser.add_argument(
        "--json", action="store_true", help="print text, token ids and statistics as JSON"
    )
    add_sampling_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    model, typed = _model_and_prompt(arguments)
    check_text(arguments.system or "")
    schema = None if arguments.schema is None else _schema(arguments.schema)
    prompt = _prompt(typed)
    adapter = one_adapter(arguments.adapters)
    path = resolve_program(model)

    from edge_llm.api import load

    with load(path, max_sequences=1, **loading_options(arguments, path)) as llm:
        pieces = _stream(llm, prompt, schema, arguments, adapter)
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


def _stream(
    llm: LLM,
    prompt: str,
    schema: dict[str, Any] | None,
    arguments: argparse.Namespace,
    adapter: str | None,
) -> Stream:
    params = sampling_params(llm, arguments)
    if arguments.raw:
        return llm.stream(prompt, params, json_schema=schema, adapter=adapter)
    messages = [{"role": "user", "content": prompt}]
    if arguments.system is not None:
        messages.insert(0, {"role": "system", "content": arguments.system})
    return llm.chat(messages, params, stream=True, json_schema=schema, adapter=adapter)


def _model_and_prompt(arguments: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return what the words of the command line name and say.

    Raises:
        RequestError: they are too many.
    """
    from edge_llm.catalogue import means_model

    model: str | None = arguments.model
    words: list[str] = arguments.words
    if model is None and (len(words) == 2 or (words and means_model(words[0]))):
        model, *words = words
    if len(words) > 1:
        raise RequestError(
            f"got {len(words)} words for the prompt, expected one",
            hint="put it into quotes: edge-llm run 'Why is the sky blue?'",
        )
    return model, words[0] if words else None


def _bounded(path: Path) -> bytes:
    """Return what is in a file, unless it is larger than any schema.

    Raises:
        RequestError: it is.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_SCHEMA_BYTES + 1)
    if len(data) > _MAX_SCHEMA_BYTES:
        raise RequestError(f"{path} has more than {_MAX_SCHEMA_BYTES} bytes, expected a schema")
    return data


def _schema(given: str) -> dict[str, Any]:
    """Return the JSON schema of ``--schema``: an object that is written out, or in a file.

    Raises:
        RequestError: there is none, the file cannot be read, or it is no JSON object.
    """
    if not given.strip():
        raise RequestError("--schema is empty, expected a file or a JSON object")
    written = given.lstrip().startswith("{")
    source = "--schema" if written else given
    try:
        found = json.loads(given if written else _bounded(Path(given)))
    except OSError as exc:
        raise RequestError(f"cannot read the schema {given}: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"{source} is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise RequestError(f"{source} is {type(found).__name__}, expected a JSON object")
    return found


def _prompt(typed: str | None) -> str:
    """Return the prompt: what was ``typed`` and, behind it, what is piped in.

    Raises:
        RequestError: there is none, or it is no text.
    """
    piped = None
    if typed == "-" or not sys.stdin.isatty():
        piped = _piped()
    parts = [part for part in (None if typed == "-" else typed, piped) if part and part.strip()]
    if not parts:
        raise RequestError(
            "there is no prompt: nothing was typed, and what was piped in is empty"
            if piped is not None
            else "there is no prompt",
            hint="edge-llm run 'Why is the sky blue?', or edge-llm chat for a conversation",
        )
    for part in parts:
        check_text(part)
    return "\n\n".join(parts)


def _tell_if_silent(source: Any) -> None:
    """Say what is waited for if nothing, not even an end, comes from ``source`` for a while; not
    where the system cannot tell, as of pipes on Windows."""
    try:
        ready, _, _ = select.select([source], [], [], _PATIENCE_SECONDS)
    except (OSError, ValueError):  # ValueError: of no file descriptor
        return
    if not ready:
        say("reading the rest of the prompt from standard input; `</dev/null` gives it none")


def _piped() -> str:
    """Return the text of standard input, without a BOM and the end of its last line, which belong
    to the file and not to what it says.

    Raises:
        RequestError: it is not UTF-8, or longer than any prompt.
    """
    from edge_llm.tokenizers.length import MAX_TEXT_BYTES

    source: Any = getattr(sys.stdin, "buffer", sys.stdin)
    _tell_if_silent(source)
    data = source.read(MAX_TEXT_BYTES + 1)  # and not all of it, which may have no end
    if len(data) > MAX_TEXT_BYTES:
        raise RequestError(
            f"standard input has more than {MAX_TEXT_BYTES} bytes, the most that a prompt may have"
        )
    try:
        text: str = data if isinstance(data, str) else data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise RequestError(
            f"standard input is not UTF-8 text: byte {exc.object[exc.start]:#04x} at {exc.start}"
        ) from exc
    return text.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")
