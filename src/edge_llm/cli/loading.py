"""The options of verbs that start an engine, from the command line or else from the settings."""

from __future__ import annotations

import argparse
from typing import Any


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, ``--huge-pages``, ``--context`` and ``--kv-dtype``; see
    `loading_options`."""
    from edge_llm.program.ops import KV_DTYPES

    parser.add_argument(
        "--threads",
        type=_threads,
        metavar="N|auto",
        help="default: auto, the physical cores that this process may use, measured (in 3 ms) "
        "where the system cannot tell them from hyper-threads",
    )
    parser.add_argument(
        "--huge-pages",
        choices=("auto", "copy", "off"),
        help="auto: ask the kernel to hold the file in huge pages; copy: copy the weights into "
        "huge pages at load, if memory allows (default: auto)",
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="most tokens of prompt and answer together (default: what the program allows); fewer "
        "take less memory",
    )
    parser.add_argument(
        "--kv-dtype",
        choices=tuple(KV_DTYPES),
        help="how keys and values are stored (default: as the program recommends)",
    )


def loading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_loading_arguments` read, or the settings have, as keyword arguments of
    `edge_llm.load`."""
    return {
        "threads": chosen(arguments, "threads", 0),
        "huge_pages": chosen(arguments, "huge_pages", "auto"),
        "context": chosen(arguments, "context", None),
        "kv_dtype": chosen(arguments, "kv_dtype", None),
    }


def chosen(arguments: argparse.Namespace, name: str, usual: Any) -> Any:
    """Return what the command line says, else the setting, else ``usual``."""
    from edge_llm.catalogue import setting

    given = getattr(arguments, name)
    if given is not None:
        return given
    found = setting(name)
    return usual if found is None else found


def _threads(text: str) -> int:
    if text == "auto":
        return 0
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number or auto") from None
