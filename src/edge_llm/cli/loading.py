"""The options of verbs that start an engine, from the command line or else from the settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_llm.errors import ConfigError


def add_loading_arguments(parser: argparse.ArgumentParser, *, adapters: str) -> None:
    """Add ``--threads``, ``--huge-pages``, ``--context``, ``--context-policy``, ``--power``,
    ``--draft``, ``--kv-dtype`` and ``--adapter``, whose help ends with ``adapters``; see
    `loading_options`."""
    from edge_llm.program.ops import KV_DTYPES
    from edge_llm.runner.context import CONTEXT_POLICIES
    from edge_llm.runner.engine.power import POWER_CHOICES

    parser.add_argument(
        "--threads",
        type=_threads,
        metavar="N|auto",
        help="default: auto, the physical cores that this process may use, measured (in 3 ms) "
        "where the system cannot tell them from hyper-threads",
    )
    parser.add_argument(
        "--power",
        choices=POWER_CHOICES,
        default="full",
        help="saver: half of the threads, which sleep while they wait; auto: likewise on battery, "
        "or where the processor is throttled for its heat; no answer depends on it (default: full)",
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
        "--context-policy",
        choices=CONTEXT_POLICIES,
        default="error",
        help="what becomes of what does not fit the context. error: a prompt is refused, an answer "
        "ends there; truncate-middle: a chat loses its oldest turns, a text its middle; "
        "sliding-window: likewise, and an answer goes on without a part of what was between its "
        "beginning and its end, which takes reading the rest again. What was left out is told "
        "(default: error)",
    )
    parser.add_argument(
        "--draft",
        nargs="?",
        const=True,
        metavar="MODEL",
        help="a smaller program of the same vocabulary, which proposes tokens where that pays and "
        "changes none; without a name, the program's own draft method",
    )
    parser.add_argument(
        "--kv-dtype",
        choices=tuple(KV_DTYPES),
        help="how keys and values are stored (default: as the program recommends)",
    )
    add_adapter_option(parser, adapters)


def add_adapter_option(parser: argparse.ArgumentParser, more: str) -> None:
    """Add ``--adapter``, of which ``adapters_of`` reads the values; the help ends in ``more``."""
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        dest="adapters",
        metavar="[NAME=]PATH",
        help=f"a LoRA adapter in PEFT's folder layout, beside the model's weights; {more}",
    )


def adapters_of(texts: Sequence[str]) -> dict[str, Path]:
    """Return folders of adapters by name: ``NAME=PATH``, or a folder whose name is the adapter's.

    Raises:
        ConfigError: two have one name.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        folder = Path(path if equals and not Path(text).is_dir() else text).expanduser()
        name = name if equals and not Path(text).is_dir() else folder.resolve().name
        if name in found:
            raise ConfigError(f"two adapters have the name {name}", hint="--adapter NAME=PATH")
        found[name] = folder
    return found


def one_adapter(texts: Sequence[str]) -> str | None:
    """Return the name of the adapter that answers; None if there is none.

    Raises:
        ConfigError: there are several.
    """
    names = list(adapters_of(texts))
    if len(names) > 1:
        raise ConfigError(f"got the adapters {', '.join(names)}, expected one")
    return names[0] if names else None


def loading_options(arguments: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Return what `add_loading_arguments` read, or the settings have, as keyword arguments of
    `edge_llm.load` for the program at ``path``.

    Raises:
        ConfigError: a setting cannot be read, or asks for more context than the program allows.
    """
    if arguments.context is None:
        _check_set_context(path)
    return {
        "threads": chosen(arguments, "threads", 0),
        "huge_pages": chosen(arguments, "huge_pages", "auto"),
        "context": chosen(arguments, "context", None),
        "context_policy": arguments.context_policy,
        "power": arguments.power,
        "kv_dtype": chosen(arguments, "kv_dtype", None),
        "adapters": adapters_of(arguments.adapters),
        "draft": _draft(arguments),
    }


def _draft(arguments: argparse.Namespace) -> bool | Path:
    """Return whether a draft method is to be loaded, or which draft program."""
    from edge_llm.cli.programs import resolve_program

    if isinstance(arguments.draft, str):
        return resolve_program(arguments.draft)
    return arguments.draft is not None or getattr(arguments, "speculation", None) == "draft"


def _check_set_context(path: Path) -> None:
    from edge_llm.catalogue import read_settings
    from edge_llm.program.summary import summary_of

    found = read_settings().get("context")
    if found is None:
        return
    most = summary_of(path).context
    if most is not None and int(found.value) > most:
        raise ConfigError(
            f"the setting `context` of {found.origin} is {found.value}, {path.stem} allows at most "
            f"{most}",
            hint=f"--context {most} comes before it; `edge-llm config context {most}` changes it.",
        )


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
