"""The parser of the command line: errors as everything else says them, with what was meant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from edge_llm.cli.console import complain
from edge_llm.near import near

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

# What argparse says, to be said as the other errors are.
_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)")
_CHOICE = re.compile(r"(argument \S+): invalid choice: (.*) \(choose from (.*)\)", re.DOTALL)
_VALUE = re.compile(r"(argument \S+): invalid (int|float) value: (.*)", re.DOTALL)
_NUMBERS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that takes no abbreviations (a mistyped option is an error, not another
    option) and whose errors are an ``error:`` and perhaps a ``hint:``; status 2."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})  # type: ignore[arg-type]

    @property
    def verbs(self) -> dict[str, Parser]:
        """The parsers of the verbs that were added, by name."""
        actions = (a for a in self._actions if isinstance(a, argparse._SubParsersAction))
        return dict(next(actions).choices)

    def knows(self, option: str) -> bool:
        """Tell whether there is such an option."""
        return option in self._option_string_actions

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit."""
        close: list[str] = []
        if (unknown := _UNKNOWN.match(message)) is not None and unknown[1].startswith("-"):
            option = unknown[1].partition("=")[0]
            message = f"{self.prog} has no option {option}"
            close = near(option, self._option_string_actions)
        elif (choice := _CHOICE.match(message)) is not None:
            choices = [word.strip("'") for word in choice[3].split(", ")]
            message = f"{choice[1]}: got {choice[2]}, expected one of: {', '.join(choices)}"
            close = near(choice[2].strip("'"), choices)
        elif (value := _VALUE.match(message)) is not None:
            message = f"{value[1]}: got {value[3]}, expected {_NUMBERS[value[2]]}"
        self.fail(message, close)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print, and unlike argparse's own say so where that fails (``--help > /dev/full``)."""
        if message:
            stream: Any = file or sys.stderr
            print(message, end="", file=stream, flush=True)

    def fail(self, message: str, close: Iterable[str] = ()) -> NoReturn:
        """Print an error, with what may have been meant, and exit."""
        meant = " or ".join(close)
        hint = f"did you mean {meant}?" if meant else f"`{self.prog} --help` says what there is"
        complain(message, hint)
        raise SystemExit(2)
