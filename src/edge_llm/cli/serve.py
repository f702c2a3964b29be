"""``edge-llm serve``: the HTTP server."""

from __future__ import annotations

import argparse
import re
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import say
from edge_llm.cli.loading import add_loading_arguments, chosen, loading_options
from edge_llm.cli.programs import completed, resolve_program

if TYPE_CHECKING:
    from edge_llm.server.models.programs import ServedProgram

KEY_VARIABLE = "EDGE_LLM_API_KEY"
HOST, PORT = "127.0.0.1", 8017


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "serve",
        help="a local HTTP server: the APIs of OpenAI, Anthropic and Ollama",
        description="Serve programs over HTTP; a browser finds a chat at the address. The first is "
        "loaded at once, others when a request names them. Listens on this machine only, unless "
        "told otherwise; another address needs an API key.",
    )
    completed(
        parser.add_argument(
            "names",
            nargs="*",
            metavar="MODEL",
            help="programs (files or names), a folder of them, or what becomes one now: a GGUF "
            "file, a checkpoint's folder, hf:ORG/NAME, a model of the catalogue (default: "
            "`edge-llm default`, else the only program here; with none, a small model is made)",
        )
    )
    completed(
        parser.add_argument(
            "--model",
            "-m",
            action="append",
            default=[],
            metavar="MODEL",
            help="the same by name; may be repeated",
        )
    )
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
        help="another name that the (first) model answers to, for clients that insist on one; may "
        "be repeated",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse unknown request parameters with 400"
    )
    add_loading_arguments(
        parser,
        adapters="may be repeated: each is served as MODEL:NAME, of the (first) model",
    )
    parser.add_argument(
        "--max-sequences", type=int, default=8, help="requests that run at once (default: 8)"
    )
    parser.add_argument(
        "--kv-budget",
        type=_bytes,
        metavar="BYTES",
        help="memory for keys and values of a model, like 512MB (default: automatic)",
    )
    parser.add_argument(
        "--sessions",
        type=Path,
        metavar="DIR",
        help="keep what conversations have computed in this folder, so that they go on at once "
        "after a restart; their texts are in it (default: kept in memory alone)",
    )
    parser.add_argument(
        "--sessions-size",
        type=_bytes,
        metavar="BYTES",
        help="the most that the folder may take, like 2GB; what was not used for longest goes "
        "(default: 4GB)",
    )
    parser.add_argument(
        "--memory",
        type=_bytes,
        metavar="BYTES",
        help="memory for all loaded models together, like 8GB: the one that was idle for longest "
        "makes room for another (default: three quarters of the machine's)",
    )
    parser.add_argument(
        "--keep-alive",
        type=_duration,
        default=inf,
        metavar="TIME",
        help="how long a model stays loaded after its last request, like 5m; requests of Ollama's "
        "API may say otherwise (default: as long as memory allows)",
    )
    parser.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="NAME",
        help="load this model at once, and never unload it; may be repeated",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from edge_llm.errors import ConfigError
    from edge_llm.runner.engine.memory import machine_memory
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
        memory=machine_memory() * 3 // 4 if arguments.memory is None else arguments.memory,
        keep_seconds=arguments.keep_alive,
        pinned=tuple(arguments.pin),
    )
    if arguments.sessions_size is not None and arguments.sessions is None:
        raise ConfigError("--sessions-size bounds a folder that --sessions DIR names, and none is")
    check_bind(options)  # before a model is fetched or loaded
    programs = [
        _program(arguments, path, first=index == 0) for index, path in enumerate(_paths(arguments))
    ]
    serve(programs, options)
    return 0


def _program(arguments: argparse.Namespace, path: Path, *, first: bool) -> ServedProgram:
    from edge_llm.runner.config import (
        DEFAULT_SESSIONS_BYTES,
        DEFAULT_STEP_TOKENS,
        RunnerConfig,
    )
    from edge_llm.server.models.programs import ServedProgram

    return ServedProgram(
        path,
        RunnerConfig(
            max_sequences=arguments.max_sequences,
            step_tokens=max(DEFAULT_STEP_TOKENS, arguments.max_sequences),  # a token for each
            kv_budget=arguments.kv_budget,
            sessions=arguments.sessions,
            sessions_bytes=(
                DEFAULT_SESSIONS_BYTES
                if arguments.sessions_size is None
                else arguments.sessions_size
            ),
            **{**loading_options(arguments, path), **({} if first else {"adapters": {}})},
        ),
    )


def _paths(arguments: argparse.Namespace) -> list[Path]:
    """Return the programs to serve, each once."""
    named: list[str] = [*arguments.names, *arguments.model]
    if not named:
        return [resolve_program(None)]
    paths = [path for name in named for path in programs_in(name) or [resolve_program(name)]]
    return list({path.resolve(): path for path in paths}.values())


def programs_in(name: str) -> list[Path]:
    """Return the whole programs in the folder ``name``, by name; none if it is no folder of
    programs. Damaged ones are said and passed over."""
    from edge_llm.program.summary import fault_of

    folder = Path(name)
    if not folder.is_dir() or (folder / "config.json").exists():  # a checkpoint's
        return []
    whole = []
    for path in sorted(folder.glob("*.edge")):
        if (fault := fault_of(path)) is None:
            whole.append(path)
        else:
            say(f"passing over {path.stem}, which is damaged: {fault}")
    return whole


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", re.IGNORECASE)


def _bytes(text: str) -> int:
    if (match := _SIZE.fullmatch(text.strip())) is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected bytes, like 8GB or 8000000000")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def _duration(text: str) -> float:
    from edge_llm.server.models.duration import keep_seconds

    try:
        return keep_seconds(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a time like 5m, 1h30m or 300 (seconds), or -1: for ever"
        ) from None


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
