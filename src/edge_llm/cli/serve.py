"""``edge-llm serve``: the OpenAI-compatible HTTP server."""

from __future__ import annotations

import argparse
from typing import Any

from edge_llm.cli.programs import (
    add_loading_arguments,
    add_model_argument,
    loading_options,
    resolve_program,
)


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "serve",
        help="a local OpenAI-compatible HTTP server",
        description="Serve one program over HTTP. Listens on this machine only, unless told "
        "otherwise; another address needs an API key.",
    )
    add_model_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1)")
    parser.add_argument(
        "--port",
        type=int,
        default=8017,
        help="default: 8017; 0 takes a free one and prints the address as JSON on stdout",
    )
    parser.add_argument("--api-key", metavar="KEY", help="clients must send it as a bearer token")
    parser.add_argument(
        "--no-auth", action="store_true", help="allow an open address without an API key"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="accept this Host header too; may be repeated",
    )
    parser.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="accept browser pages of this origin; may be repeated",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse unknown request parameters with 400"
    )
    add_loading_arguments(parser)
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
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        no_auth=arguments.no_auth,
        allowed_hosts=tuple(arguments.allowed_host),
        allowed_origins=tuple(arguments.allowed_origin),
        strict=arguments.strict,
    )
    check_bind(options)  # before a model is fetched or loaded
    serve(
        resolve_program(arguments.model),
        options,
        RunnerConfig(
            max_sequences=arguments.max_sequences,
            step_tokens=max(DEFAULT_STEP_TOKENS, arguments.max_sequences),  # a token for each
            kv_budget=arguments.kv_budget,
            **loading_options(arguments),
        ),
    )
    return 0
