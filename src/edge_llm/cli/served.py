"""``edge-llm ps`` and ``stop``: the models of a server that runs."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_llm.cli.console import human_bytes, print_json, say, table
from edge_llm.errors import EdgeLLMError, RequestError

_SECONDS = 30.0
_NEVER = "9999"


def add_parser(verbs: Any) -> None:
    ps = verbs.add_parser(
        "ps",
        help="models that a running server has loaded",
        description="List the models of a server that runs: in memory or not, and until when.",
    )
    _add_server_arguments(ps)
    ps.add_argument("--json", action="store_true", help="print the list as JSON")
    ps.set_defaults(run=run_ps)

    stop = verbs.add_parser(
        "stop",
        help="unload a model of a running server",
        description="Have a server that runs unload a model, once the requests that run on it have "
        "ended. The next request loads it again.",
    )
    stop.add_argument("name", metavar="MODEL", help="a name from `edge-llm ps`")
    _add_server_arguments(stop)
    stop.set_defaults(run=run_stop)


def _add_server_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", help="the server's address (default: http://127.0.0.1:8017, or as the settings)"
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="PATH",
        help="read the server's key from a file's first line (default: EDGE_LLM_API_KEY)",
    )


def run_ps(arguments: argparse.Namespace) -> int:
    listed = _ask(arguments, "/v1/models")["data"]
    loaded = {_plain(entry["name"]): entry for entry in _ask(arguments, "/api/ps")["models"]}
    if arguments.json:
        found = [{**entry, **loaded.get(entry["id"], {})} for entry in listed]
        print_json({"models": found})
        return 0
    rows = [_row(entry, loaded.get(entry["id"])) for entry in listed]
    print(table(("MODEL", "STATE", "MEMORY", "CONTEXT", "UNTIL"), rows))
    return 0


def run_stop(arguments: argparse.Namespace) -> int:
    body = {"model": arguments.name, "keep_alive": 0}
    told = _ask(arguments, "/api/generate", body)
    say(f"{told['model']} is unloaded once its requests have ended")
    return 0


def _row(entry: dict[str, Any], held: dict[str, Any] | None) -> tuple[str, ...]:
    memory, until = "", ""
    if held is not None:
        memory, until = human_bytes(held["size"]), _until(held["expires_at"])
    return entry["id"], entry["state"], memory, str(entry["context_length"]), until


def _plain(name: str) -> str:
    return name.removesuffix(":latest")


def _until(moment: str) -> str:
    if moment.startswith(_NEVER):
        return "memory is needed"
    left = datetime.fromisoformat(moment) - datetime.now(UTC)
    return f"{max(0, round(left.total_seconds()))} s from now"


def _ask(arguments: argparse.Namespace, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the reply of the server, as JSON.

    Raises:
        RequestError: the server refuses the request.
        EdgeLLMError: there is no such server.
    """
    import json
    import urllib.error
    import urllib.request

    from edge_llm.cli.serve import api_key

    url = arguments.url or _address()
    headers = {"content-type": "application/json"}
    if (key := api_key(None, arguments.api_key_file)) is not None:
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps({"stream": False, **body}).encode()
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}{path}", data, headers)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=_SECONDS) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as exc:
        raise RequestError(f"the server at {url} refuses: {_message(exc.read())}") from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "reason", exc)
        raise EdgeLLMError(
            f"no server of edge-llm answers at {url}: {reason}",
            hint="`edge-llm serve` starts one; --url says where it is",
        ) from exc


def _message(data: bytes) -> str:
    import json

    try:
        error = json.loads(data)["error"]
    except (ValueError, LookupError, TypeError):
        return "no reason given"
    return str(error["message"] if isinstance(error, dict) else error)


def _address() -> str:
    from edge_llm.catalogue import setting
    from edge_llm.cli.serve import HOST, PORT

    host, port = str(setting("host") or HOST), setting("port") or PORT
    if host in ("0.0.0.0", "::"):  # every address of this machine
        host = HOST
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
