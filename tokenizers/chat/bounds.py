"""Limits on what a chat template may build: on each value and on all of them together.

C code holds the interpreter, so a time limit does not end it: an operation whose result would be
huge is refused before it is computed. Sizes are in characters, or roughly the bytes of what is no
text; a container counts what it holds as often as it holds it, so that none can be small in memory
and huge when written out.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sized
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

MAX_CHARACTERS = 16_000_000  # of a rendered conversation, and of any text built on the way
MAX_TOTAL = 2**28  # characters, of all that one rendering builds: in memory, 1 GiB at most
MAX_BITS = 4096  # of a whole number
MAX_DATE_CHARACTERS = 256
_ITEM = 64  # of an item of a container, without its own content

# Methods of text that look, and those that copy it once.
# fmt: off
_LOOKS = frozenset(
    {
        "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal",
        "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle",
        "isupper", "rfind", "rindex", "startswith",
    }
)
_COPIES = frozenset(
    {
        "capitalize", "casefold", "lower", "lstrip", "partition", "removeprefix", "removesuffix",
        "rpartition", "rstrip", "strip", "swapcase", "title", "upper",
    }
)
# fmt: on
_PADS = frozenset({"center", "ljust", "rjust", "zfill"})

_spent = threading.local()


def start_counting() -> None:
    """Begin a rendering, in its own thread."""
    _spent.size = 0


def spend(size: int, what: str) -> None:
    """Count something that is about to be built.

    Raises:
        SecurityError: it, or all so far, is too large.
    """
    total = getattr(_spent, "size", 0) + size
    if size > MAX_CHARACTERS or total > MAX_TOTAL:
        raise SecurityError(f"the result of {what} is too large")
    _spent.size = total


def weigh(value: Any, what: str) -> int:
    """Return the size of a value written out.

    Raises:
        SecurityError: it is too large.
    """
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        total += size_of(item) + _ITEM
        if total > MAX_CHARACTERS:
            raise SecurityError(f"the result of {what} is too large")
        if isinstance(item, Mapping):
            rest.extend(item.keys())
            rest.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            rest.extend(item)
        elif isinstance(item, Namespace):
            rest.append(object.__getattribute__(item, "_Namespace__attrs"))
    return total


def size_of(value: Any) -> int:
    """Return the size of a text, or of a container without the content of its items."""
    if isinstance(value, str | bytes):
        return len(value)
    return _ITEM * len(value) if isinstance(value, Sized) else 0


def count_of(value: Any) -> int:
    """Return a whole number without its sign; 0 for anything else."""
    return abs(value) if isinstance(value, int) else 0


def formatted(text: str, values: Any) -> int:
    """Return at least the characters that the widths in ``text % values`` ask for."""
    widths = re.findall(r"%[^a-zA-Z%]*", text)
    stars = values if isinstance(values, tuple) else (values,)
    return sum(_digits(width) + ("*" in width) * sum(map(count_of, stars)) for width in widths)


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Count what an operator of a template would build.

    Raises:
        SecurityError: the result of ``left operator right`` would be too large.
    """
    what = repr(operator)
    if isinstance(left, int) and isinstance(right, int):
        if operator == "**":
            bits = left.bit_length() * abs(right)
        else:
            bits = left.bit_length() + right.bit_length()
        if bits > MAX_BITS:
            raise SecurityError(f"the result of {what} is too large")
    elif operator == "+":
        spend(size_of(left) + size_of(right), what)
    elif operator == "*":
        spend(max(size_of(left) * count_of(right), size_of(right) * count_of(left)), what)
    elif operator == "%" and isinstance(left, str):
        fields = left.count("%")
        spend(len(left) + formatted(left, right) + fields * weigh(right, what), what)


def check_call(called: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Count what a call of a template would build.

    Raises:
        SecurityError: what is called is no business of a template, or would build too much.
    """
    method = getattr(called, "__wrapped__", called)  # the sandbox wraps `format`
    owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    what = repr(name or type(called).__name__)
    if isinstance(owner, int | float | bytes):
        raise SecurityError(f"{what} of a {type(owner).__name__} is not for templates")
    passed = weigh((arguments, dict(named)), what)
    if not isinstance(owner, str) or name in _LOOKS:
        return
    if name in _COPIES:
        spend(len(owner), what)
    elif name in _PADS:
        spend(len(owner) + max(map(count_of, arguments), default=0), what)
    elif name in ("format", "format_map"):
        widths = sum(map(_digits, re.findall(r":[^}]*", owner)))
        if re.search(r":[^}]*\{", owner):  # a width that is an argument
            widths += sum(map(count_of, (*arguments, *named.values())))
        spend(len(owner) + (owner.count("{") + 1) * passed + widths, what)
    elif name == "replace":
        spend(replaced(owner, *arguments[:2]), what)
    elif name == "join":
        spend(len(owner) * size_of([*arguments, ""][0]) + passed, what)
    elif name in ("split", "rsplit", "splitlines"):
        spend(len(owner) + _ITEM * _pieces(owner, name, [*arguments, *named.values()]), what)
    else:
        raise SecurityError(f"{what} of a text is not for templates")


def replaced(text: str, old: Any = "", new: Any = "") -> int:
    """Return the characters of ``text.replace(old, new)``, or more."""
    return len(text) + text.count(str(old)) * len(str(new))


def _pieces(text: str, name: str, arguments: list[Any]) -> int:
    separators = [value for value in arguments if isinstance(value, str) and value]
    if separators:
        return 1 + text.count(separators[0])
    pattern = r"[\n-\r\x1c-\x1e\x85\u2028\u2029]" if name == "splitlines" else r"\s+"
    return 1 + sum(1 for _ in re.finditer(pattern, text))


def _digits(text: str) -> int:
    """Return the sum of the numbers in a text, each cut where it is beyond any limit."""
    return sum(int(digits) for digits in re.findall(r"\d{1,9}", text))
