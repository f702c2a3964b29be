"""``edge-llm ls``, ``pull`` and ``rm``: the files under EDGE_LLM_HOME."""

from __future__ import annotations

import argparse
import time
from typing import Any

from edge_llm.cli.console import Progress, human_bytes, print_json, say, table
from edge_llm.cli.fetch import announce, fetch_program
from edge_llm.cli.programs import completed, model_of
from edge_llm.errors import RequestError, SourceError

_MODEL = "a name from `edge-llm ls --all`, or hf:ORG/NAME[/FILE.gguf][@REVISION] on Hugging Face"
_READY = "or a ready program: https://HOST/FILE.edge[#sha256=HEX], hf:ORG/NAME/FILE.edge"


def add_parser(verbs: Any) -> None:
    listing = verbs.add_parser(
        "ls",
        help="programs here, and models that can be had",
        description="List the programs of the store, the newest first.",
    )
    listing.add_argument("--all", action="store_true", help="also the models of the catalogue")
    listing.add_argument("--json", action="store_true", help="print the lists as JSON")
    listing.set_defaults(run=run_ls)

    pull = verbs.add_parser(
        "pull",
        help="fetch a model or a ready program, or check one that is here",
        description="Fetch a model or a ready program. What is here is checked instead, and "
        "fetched again if it is damaged; after an interruption, only what is missing is fetched.",
    )
    completed(pull.add_argument("name", nargs="?", metavar="MODEL", help=f"{_MODEL}; {_READY}"))
    completed(pull.add_argument("--model", "-m", metavar="MODEL", help="the same by name"))
    pull.add_argument(
        "--verify",
        action="store_true",
        help="read every file that is here and compare its digest, even if its size and time are "
        "those of the last check",
    )
    pull.set_defaults(run=run_pull)

    remove = verbs.add_parser(
        "rm",
        help="remove programs or fetched models",
        description="Remove programs of the store, or fetched models, without asking; models from "
        "Hugging Face leave the cache that its other clients share.",
    )
    named = remove.add_argument("names", nargs="*", metavar="MODEL", help=f"a program, or {_MODEL}")
    again = remove.add_argument(
        "--model", "-m", action="append", default=[], metavar="MODEL", help="the same by name"
    )
    completed(named)
    completed(again)
    remove.set_defaults(run=run_rm)


def run_ls(arguments: argparse.Namespace) -> int:
    programs = _programs()
    models = _models() if arguments.all else []
    if arguments.json:
        print_json({"programs": programs, **({"models": models} if arguments.all else {})})
        return 0
    if programs:
        rows = [_program_row(program) for program in programs]
        print(table(("PROGRAM", "SCHEME", "CONTEXT", "SIZE", "MADE", ""), rows))
    else:
        print("No programs yet; `edge-llm run` makes a small one, `edge-llm export` others.")
    if models:
        print()
        rows = [_model_row(model) for model in models]
        print(table(("MODEL", "PARAMETERS", "DOWNLOAD", "LICENCE", "FETCHED"), rows))
    return 0


def _programs() -> list[dict[str, Any]]:
    from edge_llm import catalogue
    from edge_llm.program.summary import summary_of

    rows = []
    items = catalogue.list_programs()
    default = catalogue.setting("default")
    for item in items:
        summary = summary_of(item.path)
        rows.append(
            {
                "name": item.name,
                "model": summary.name,
                "scheme": summary.scheme,
                "context": summary.context,
                "bytes": item.bytes,
                "modified": item.modified,
                "path": str(item.path),
                # the only program answers where nothing is chosen
                "default": default in (item.name, str(item.path))
                or (default is None and len(items) == 1),
                "older_format": summary.older_format,
            }
        )
    return rows


def _models() -> list[dict[str, Any]]:
    from edge_llm import catalogue

    return [
        {
            "name": entry.name,
            "source": entry.source,
            "licence": entry.licence,
            "parameters": entry.parameters,
            "download_bytes": entry.download_bytes,
            "fetched": catalogue.is_pulled(entry),
        }
        for entry in catalogue.list_models()
    ]


def _program_row(program: dict[str, Any]) -> tuple[object, ...]:
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(program["modified"]))
    note = "default" if program["default"] else ""
    if program["older_format"] is not None:
        note = f"format {program['older_format']}: export again"
    return (
        program["name"],
        program["scheme"],
        program["context"],
        human_bytes(program["bytes"]),
        made,
        note,
    )


def _model_row(model: dict[str, Any]) -> tuple[object, ...]:
    return (
        model["name"],
        f"{model['parameters'] / 1e6:.0f} M",
        human_bytes(model["download_bytes"]),
        model["licence"],
        "yes" if model["fetched"] else "",
    )


def run_pull(arguments: argparse.Namespace) -> int:
    from edge_llm import catalogue

    name = model_of(arguments)
    if name is None:
        raise RequestError("pull takes a MODEL, got none", hint="`edge-llm ls --all` lists some.")
    if catalogue.names_program(name):
        print(fetch_program(name, verify=arguments.verify))
        return 0
    located = catalogue.locate(name)
    if catalogue.identify(name) is None:
        raise SourceError(f"{name} is a path: there is nothing to fetch")
    troubles: list[str] = []

    def tell(trouble: str) -> None:
        troubles.append(trouble)
        say(trouble)

    announce(located)
    progress = Progress()
    try:
        path = catalogue.pull(name, progress, verify=arguments.verify, tell=tell)
    finally:
        progress.close()
    if located == path and not troubles:
        say("already here, and whole: what was fetched, byte for byte")
    print(path)
    return 0


def run_rm(arguments: argparse.Namespace) -> int:
    from edge_llm import catalogue

    names = list(dict.fromkeys([*arguments.names, *arguments.model]))
    if not names:
        raise RequestError("rm takes one or more MODELs, got none")
    default = catalogue.setting("default")
    failed: list[SourceError] = []
    freed = 0
    for name in names:
        try:
            removed = catalogue.remove(name)
        except SourceError as exc:
            failed.append(exc)
            continue
        freed += removed.bytes
        for path in removed.paths:
            say(f"removed {path} ({human_bytes(removed.bytes)})")
            if default in (path.stem, str(path)):
                say(f"{path.stem} was the default; `edge-llm default NAME` chooses another")
    if len(names) - len(failed) > 1:
        say(f"{human_bytes(freed)} of the disk are free again")
    if failed:
        hints = [exc.hint for exc in failed if exc.hint]
        raise SourceError("; ".join(map(str, failed)), hint="\n".join(hints) or None)
    return 0
