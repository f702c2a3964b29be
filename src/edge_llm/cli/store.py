"""``edge-llm ls``, ``pull`` and ``rm``: the files under EDGE_LLM_HOME."""

from __future__ import annotations

import argparse
from typing import Any

from edge_llm.cli.console import Progress, human_bytes, print_json, say, table
from edge_llm.cli.fetch import fetch
from edge_llm.errors import SourceError

_MODEL = "a name from `edge-llm ls`, or hf:ORG/NAME[/FILE.gguf][@REVISION] on Hugging Face"


def add_parser(verbs: Any) -> None:
    listing = verbs.add_parser(
        "ls", help="programs here, and models that can be had", description="List the store."
    )
    listing.add_argument("--json", action="store_true", help="print the lists as JSON")
    listing.set_defaults(run=run_ls)

    pull = verbs.add_parser(
        "pull",
        help="fetch a model",
        description="Fetch a model. What is here already is not fetched again; after an "
        "interruption, only the files that are missing are.",
    )
    pull.add_argument("name", metavar="NAME|hf:ORG/NAME", help=_MODEL)
    pull.set_defaults(run=run_pull)

    remove = verbs.add_parser(
        "rm",
        help="remove a program or a fetched model",
        description="Remove a program of the store, or a fetched model; models from Hugging Face "
        "leave the cache that its other clients share.",
    )
    remove.add_argument("name", metavar="NAME|hf:ORG/NAME", help=_MODEL)
    remove.set_defaults(run=run_rm)


def run_ls(arguments: argparse.Namespace) -> int:
    from edge_llm import catalogue
    from edge_llm.program.version import older_format

    programs = [(item, older_format(item.path)) for item in catalogue.list_programs()]
    models = catalogue.list_models()
    if arguments.json:
        print_json(
            {
                "programs": [
                    {
                        "name": item.name,
                        "path": str(item.path),
                        "bytes": item.bytes,
                        "older_format": older,
                    }
                    for item, older in programs
                ],
                "models": [
                    {
                        "name": entry.name,
                        "source": entry.source,
                        "licence": entry.licence,
                        "parameters": entry.parameters,
                        "download_bytes": entry.download_bytes,
                        "fetched": catalogue.is_pulled(entry),
                    }
                    for entry in models
                ],
            }
        )
        return 0
    if programs:
        rows = [
            (
                item.name,
                human_bytes(item.bytes),
                item.path,
                "" if older is None else f"format {older}: export again",
            )
            for item, older in programs
        ]
        print(table(("PROGRAM", "SIZE", "FILE", ""), rows))
    else:
        print("No programs yet; `edge-llm export --model NAME` makes one.")
    print()
    print(
        table(
            ("MODEL", "PARAMETERS", "DOWNLOAD", "LICENCE", "FETCHED"),
            [
                (
                    entry.name,
                    f"{entry.parameters / 1e6:.0f} M",
                    human_bytes(entry.download_bytes),
                    entry.licence,
                    "yes" if catalogue.is_pulled(entry) else "",
                )
                for entry in models
            ],
        )
    )
    return 0


def run_pull(arguments: argparse.Namespace) -> int:
    from edge_llm import catalogue

    name = arguments.name
    if catalogue.identify(name) is None:
        raise SourceError(f"{name} is a path: there is nothing to fetch")
    progress = Progress()
    try:
        path = fetch(name, progress)
    finally:
        progress.close()
    print(path)
    return 0


def run_rm(arguments: argparse.Namespace) -> int:
    from edge_llm import catalogue

    for path in catalogue.remove(arguments.name):
        say(f"removed {path}")
    return 0
