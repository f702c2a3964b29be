"""``edge-llm serve``: the HTTP server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_llm.cli.loading import add_loading_arguments, chosen, loading_options
from edge_llm.cli.programs import add_model_argument, model_of, resolve_program

KEY_VARIABLE = "EDGE_LLM_API_KEY"
HOST, PORT = "127.0.0.1", 8017


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "serve",
        help="a local HTTP server: the APIs of OpenAI, Anthropic and Ollama",
        description="Serve one program over HTTP; a browser finds a chat at the address. Listens "
        "on this machine only, unless told otherwise; another address needs an API key.",
    )
    add_model_argument(parser)
    parser.add_argument("--host", help=f"address to bind (default: {HOST})")
    parser.add_argument(
        "--port",
        type=int,
        help="default: 8017; 0 takes a free one and prints the address as JSON on stdout",
    )
    key = parser.add_mutually_exclusive_group()
    key.add_argument(
        "--api-key",
        metavar="KEY",
        help="clients must send it, as a bearer token or x-api-key; the list of processes shows "
        f"it, unlike a file or {KEY_VARIABLE} in the environment (the default)",
    )
    key.add_argument(
        "--api-key-file", type=Path, metavar="PATH", help="read the key from a file's first line"
    )
    parser.add_argument(
        "--no-auth", action="store_true", help="allow an open address without an API key"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="accept this Host header too, like box.lan, without a port; may be repeated",
    )
    parser.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="accept browser pages of this origin, like http://localhost:3000; may be repeated",
    )
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that the model answers to, for clients that insist on one; may be "
        "repeated",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse unknown request parameters with 400"
    )
    add_loading_arguments(parser)
    parser.add_argument(
        "--draft",
        action="store_true",
        help="load the program's draft method, for requests with speculation draft",
    )
    parser.add_argument(
        "--max-sequences", type=int, default=8, help="requests that run at once (default: 8)"
    )
    parser.add_argument(
        "--kv-budget",
        type=int,
        metavar="BYTES",
        help="memory for keys and values (default: automatic)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from edge_llm.runner.config import DEFAULT_STEP_TOKENS, RunnerConfig
    from edge_llm.server.options import ServerOptions, check_bind
    from edge_llm.server.run import serve

    options = ServerOptions(
        host=chosen(arguments, "host", HOST),
        port=chosen(arguments, "port", PORT),
        api_key=api_key(arguments.api_key, arguments.api_key_file),
        no_auth=arguments.no_auth,
        allowed_hosts=tuple(arguments.allowed_host),
        allowed_origins=tuple(arguments.allowed_origin),
        strict=arguments.strict,
        aliases=tuple(arguments.alias),
    )
    check_bind(options)  # before a model is fetched or loaded
    path = resolve_program(model_of(arguments))
    serve(
        path,
        options,
        RunnerConfig(
            max_sequences=arguments.max_sequences,
            step_tokens=max(DEFAULT_STEP_TOKENS, arguments.max_sequences),  # a token for each
            kv_budget=arguments.kv_budget,
            **loading_options(arguments, path),
        ),
    )
    return 0


def _set_key() -> str | None:
    from edge_llm.catalogue import setting

    found = setting("api_key")
    return None if found is None else str(found)


def api_key(given: str | None, file: Path | None) -> str | None:
    """Return the key from the option, the file or the settings; None if there is none.

    Raises:
        ConfigError: the file cannot be read, or is empty.
    """
    from edge_llm.errors import ConfigError

    if file is None:
        return given if given is not None else _set_key()
    try:
        key = file.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise ConfigError(f"the API key's file {file} cannot be read: {reason}") from exc
    if not key:
        raise ConfigError(f"the API key's file {file} has an empty first line")
    return key
