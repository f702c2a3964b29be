"""The parser of the command line: errors as everything else says them, with what was meant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn

_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)")


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

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit."""
        unknown = _UNKNOWN.match(message)
        close: list[str] = []
        if unknown is not None and unknown[1].startswith("-"):
            option = unknown[1].partition("=")[0]
            message = f"{self.prog} has no option {option}"
            close = suggested(option, self._option_string_actions)
        self.fail(message, close)

    def fail(self, message: str, close: Iterable[str] = ()) -> NoReturn:
        """Print an error, with what may have been meant, and exit."""
        meant = " or ".join(close)
        hint = f"did you mean {meant}?" if meant else f"`{self.prog} --help` says what there is"
        print(f"error: {message}\nhint: {hint}", file=sys.stderr)
        raise SystemExit(2)


def suggested(word: str, known: Iterable[str]) -> list[str]:
    """Return the words, at most two, that ``word`` may be a slip for."""
    return get_close_matches(word, list(known), n=2, cutoff=0.6)
