"""``edge-llm default`` and ``config``: what every command takes unless it is told another."""

from __future__ import annotations

import argparse
from typing import Any

from edge_llm.cli.console import print_json, say, table
from edge_llm.errors import RequestError


def add_parser(verbs: Any) -> None:
    default = verbs.add_parser(
        "default",
        help="show or choose the program that answers where none is named",
        description="Show the program that answers where none is named, or choose it for good.",
    )
    default.add_argument("name", nargs="?", metavar="MODEL", help="a program, or a model's name")
    default.add_argument("--unset", action="store_true", help="choose none")
    default.set_defaults(run=run_default)

    config = verbs.add_parser(
        "config",
        help="show or change settings",
        description="Show every setting and, where one is set, its value and where it comes from; "
        "with KEY and VALUE, change one in the file. The command line comes before the "
        "environment (EDGE_LLM_KEY in capitals), which comes before the file.",
    )
    config.add_argument("key", nargs="?", metavar="KEY")
    config.add_argument("value", nargs="?", metavar="VALUE")
    config.add_argument("--unset", action="store_true", help="remove KEY from the file")
    config.add_argument("--json", action="store_true", help="print the settings as JSON")
    config.set_defaults(run=run_config)


def run_default(arguments: argparse.Namespace) -> int:
    from edge_llm import catalogue
    from edge_llm.catalogue.settings import change

    if arguments.unset:
        if arguments.name is not None:
            raise RequestError("default takes a MODEL or --unset, got both")
        say(f"no default any more ({change('default', None)})")
    elif arguments.name is not None:
        path = catalogue.find_program(arguments.name)
        inside = path.parent == catalogue.programs_dir()
        name = path.stem if inside else str(path.resolve())
        say(f"{name} answers where no model is named ({change('default', name)})")
    else:
        found = catalogue.read_settings().get("default")
        if found is None:
            say("no default: the only program answers; `edge-llm default NAME` chooses one")
        else:
            print(found.value)
            say(f"from {found.origin}")
    return 0


def run_config(arguments: argparse.Namespace) -> int:
    from edge_llm.catalogue.settings import change, check_setting

    key, value = arguments.key, arguments.value
    if arguments.unset:
        if key is None or value is not None:
            raise RequestError("config --unset takes a KEY alone")
        say(f"{key} is not set any more in {change(key, None)}")
        return 0
    if value is not None:
        say(f"{key} is set in {change(key, value)}")
        return 0
    shown = _shown()
    if key is not None:
        if key not in shown:
            check_setting(key, "", "config")
        print(shown[key][0] or "")
        return 0
    if arguments.json:
        print_json(
            {name: {"value": value, "from": origin} for name, (value, origin, _) in shown.items()}
        )
        return 0
    print(
        table(
            ("SETTING", "VALUE", "FROM", "MEANING"),
            [(name, value, origin, meaning) for name, (value, origin, meaning) in shown.items()],
        )
    )
    return 0


def _shown() -> dict[str, tuple[str | None, str | None, str]]:
    """Return value, origin and meaning of every setting; secrets are not shown."""
    from edge_llm.catalogue.settings import SETTINGS, read_settings

    found = read_settings()
    rows = {}
    for name, setting in SETTINGS.items():
        here = found.get(name)
        value = None if here is None else "(set)" if setting.secret else str(here.value)
        rows[name] = (value, None if here is None else here.origin, setting.meaning)
    return rows
