"""Grammars: what an answer may be, as Lark text in llguidance's dialect, whatever it was asked in.

Making one checks its form and bounds its size; whether it can be enforced on a model's vocabulary
is for `Guide.check` to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge_llm.errors import RequestError
from edge_llm.runner.guidance.reasons import reason_of
from edge_llm.runner.guidance.schema import enforceable

MOST_BYTES = 1024 * 1024  # of a grammar's text
# Rules and terminals that refer to each other in a chain are walked recursively.
_MOST_LINES = 2_000
_MOST_CHOICES = 10_000

# What may hold the characters `%json` without meaning them, and what means them.
_LARK_PARTS = re.compile(
    r"""(?://|\#)[^\n]* | "(?:\\.|[^"\\\n])*" | /(?:\\.|[^/\\\n])+/ | (?P<json>%json\s*(?=\{))""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer may be.

    Attributes:
        text: the grammar in llguidance's dialect of Lark; the whole answer is a ``start``.
    """

    text: str

    @staticmethod
    def json_object() -> Grammar:
        """Return the grammar of any JSON object."""
        return Grammar.json_schema({"type": "object"})

    @staticmethod
    def json_schema(schema: object, *, param: str | None = None) -> Grammar:
        """Return the grammar of JSON values that a schema allows, keys in the schema's order, on
        one line.

        Raises:
            RequestError: with ``param``: not a schema, too large, or something in it that cannot
                be enforced.
        """
        return Grammar(f"start: {_json(schema, param)}\n")

    @staticmethod
    def regex(pattern: str, *, param: str | None = None) -> Grammar:
        """Return the grammar of texts that a regular expression matches from end to end. ``\\d``
        and ``\\w`` are those of ASCII.

        Raises:
            RequestError: with ``param``: not a text, empty or too long.
        """
        _check_text(pattern, "regular expression", param)
        from llguidance import regex_to_lark  # here: programs without grammars start faster

        return Grammar(f"start: TEXT\nTEXT: /{regex_to_lark(pattern, 'dw')}/\n")

    @staticmethod
    def choice(texts: Sequence[str], *, param: str | None = None) -> Grammar:
        """Return the grammar of some texts.

        Raises:
            RequestError: with ``param``: not a list of texts, or none, or too many.
        """
        if (
            not isinstance(texts, list | tuple)
            or not 1 <= len(texts) <= _MOST_CHOICES
            or not all(isinstance(text, str) for text in texts)
        ):
            raise RequestError(
                f"the choices are no list of 1 to {_MOST_CHOICES} texts", param=param
            )
        quoted = " | ".join(_quoted(text) for text in dict.fromkeys(texts))
        if len(quoted) > MOST_BYTES:
            raise RequestError(
                f"the choices have {len(quoted)} bytes, expected up to {MOST_BYTES}", param=param
            )
        return Grammar(f"start: TEXT\nTEXT: {quoted}\n")

    @staticmethod
    def lark(text: str, *, param: str | None = None) -> Grammar:
        """Return a grammar that is written in llguidance's dialect of Lark. JSON schemas in it
        (``%json {…}``) are held to the rules of `json_schema`.

        Raises:
            RequestError: with ``param``: not a text, empty, too long or of too many lines, or a
                schema in it that cannot be enforced.
        """
        _check_text(text, "grammar", param)
        parts: list[str] = []
        lines = place = 0
        decoder = json.JSONDecoder()
        while (found := _LARK_PARTS.search(text, place)) is not None:
            end = found.end()
            part = text[place:end]
            lines += part.count("\n")
            if found["json"] is not None:
                try:
                    schema, end = decoder.raw_decode(text, end)
                except (ValueError, RecursionError) as error:
                    raise RequestError(
                        f"the grammar has a %json that is not followed by JSON: {error}",
                        param=param,
                    ) from error
                part = text[place : found.start()] + _json(schema, param)
            parts.append(part)
            place = end
        rest = text[place:]
        if (lines := lines + rest.count("\n")) > _MOST_LINES:
            raise RequestError(
                f"the grammar has {lines} lines, expected up to {_MOST_LINES}", param=param
            )
        return Grammar("".join(parts) + rest)

    @staticmethod
    def gbnf(text: str, *, param: str | None = None) -> Grammar:
        """Return a grammar that is written in llama.cpp's GBNF.

        Raises:
            RequestError: with ``param``: as `lark`, or not GBNF.
        """
        _check_text(text, "grammar", param)
        from llguidance.gbnf_to_lark import gbnf_to_lark

        try:
            lark = gbnf_to_lark(text)
        except Exception as error:  # its own error type, and whatever else its parser runs into
            raise RequestError(
                f"the grammar is not GBNF: {reason_of(error)}", param=param
            ) from error
        return Grammar.lark(lark, param=param)

    @staticmethod
    def lark_or_gbnf(text: str, *, param: str | None = None) -> Grammar:
        """Return the grammar of a text in either syntax, which its rules' signs tell.

        Raises:
            RequestError: with ``param``: as `lark` and `gbnf`.
        """
        _check_text(text, "grammar", param)
        from llguidance.gbnf_to_lark import is_lark_syntax

        return (Grammar.lark if is_lark_syntax(text) else Grammar.gbnf)(text, param=param)


def _json(schema: object, param: str | None) -> str:
    return "%json " + json.dumps(enforceable(schema, param), ensure_ascii=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _check_text(text: object, name: str, param: str | None) -> None:
    if not isinstance(text, str) or not text:
        raise RequestError(f"the {name} is no text, or an empty one", param=param)
    size = len(text.encode(errors="replace"))
    if size > MOST_BYTES:
        raise RequestError(f"the {name} has {size} bytes, expected up to {MOST_BYTES}", param=param)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"the {name} is not Unicode: {error}", param=param) from error
