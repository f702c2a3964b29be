"""Chat templates come with checkpoints, so they are code from strangers: jinja2 in its sandbox,
with limits on what it may take."""

from __future__ import annotations

import ctypes
import functools
import json
import queue
import re
import threading
from collections.abc import Callable, Sized
from datetime import datetime
from typing import Any, TypeVar

from jinja2 import Template, filters, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_CHARACTERS = 16_000_000  # of a rendered conversation, and of any text built on the way
MAX_SOURCE_CHARACTERS = 1_000_000
MAX_SECONDS = 10.0
MAX_INDENT = 64

_T = TypeVar("_T")


class TemplateTimeoutError(Exception):
    """A template ran for longer than it may."""


class Environment(ImmutableSandboxedEnvironment):
    """What ``transformers`` gives a template: its whitespace rules, loop controls, ``generation``
    blocks, JSON that is not escaped for HTML, ``raise_exception`` and ``strftime_now``.

    Unlike there, text and lists that a template multiplies or joins are bounded.
    """

    intercepted_binops = frozenset({"*", "+", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        for name in ("batch", "center", "format", "indent", "slice", "wordwrap"):
            self.filters[name] = _bounded_numbers(self.filters[name])
        del self.globals["lipsum"]  # no template of a model needs it
        self.filters["tojson"] = _to_json
        self.filters["bounded_join"] = _bounded_join
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def compile_bounded(self, source: str) -> Template:
        """
        Raises:
            jinja2.TemplateError: the source is not a template.
        """
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise TemplateError(f"longer than {MAX_SOURCE_CHARACTERS} characters")
        tree = _BoundJoins().visit(self.parse(source))
        return self.from_string(tree)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse an operation whose result would be huge, before it is computed."""
        if operator == "+":
            size = _size(left) + _size(right)
        elif operator == "*":
            numbers = isinstance(left, int) and isinstance(right, int)
            size = 0 if numbers else max(_size(left) * _count(right), _size(right) * _count(left))
        elif operator == "%":
            size = _formatted(left, right)
        else:
            size = _count(left).bit_length() * _count(right)
        if size > MAX_CHARACTERS:
            raise SecurityError(f"the result of {operator!r} is too large")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *arguments: Any, **named: Any) -> Any:  # noqa: N805 (jinja2's names, which no keyword of a template can be)
        """Refuse a method of a text whose result would be huge."""
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps `format`
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            size = max((_count(value) for value in arguments), default=0)
            if method.__name__ in ("format", "format_map"):
                widths = re.findall(r":[^}]*?(\d{1,9})", text)
                size = max([size, *map(int, widths)])
            elif method.__name__ == "replace" and len(arguments) > 1:
                size = text.count(str(arguments[0])) * _size(arguments[1])
            elif method.__name__ == "join" and arguments:
                size = len(text) * _size(arguments[0])
            if size > MAX_CHARACTERS:
                raise SecurityError(f"the result of {method.__name__!r} is too large")
        return super().call(__context, __obj, *arguments, **named)


def render_bounded(template: Template, context: dict[str, Any]) -> str:
    """
    Raises:
        jinja2.TemplateError: the template rejects the context, or its text is too long.
    """
    parts: list[str] = []
    length = 0
    for part in template.generate(context):
        parts.append(part)
        length += len(part)
        if length > MAX_CHARACTERS:
            raise SecurityError(f"the text is longer than {MAX_CHARACTERS} characters")
    return "".join(parts)


def run_within(seconds: float, work: Callable[[], _T]) -> _T:
    """The result of ``work``, computed in a thread of its own, which is told to end when its time
    is up: an exception can be sent to another thread, and no other can be hit by it.

    Raises:
        TemplateTimeoutError: it took longer.
        Exception: whatever ``work`` raises.
    """
    outcome: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def body() -> None:
        try:
            try:
                result: tuple[bool, Any] = (True, work())
            except Exception as exc:
                result = (False, exc)
            outcome.put(result)
        except TemplateTimeoutError:
            pass  # it came when the work had just ended; nobody waits any more

    thread = threading.Thread(target=body, name="chat-template", daemon=True)
    thread.start()
    try:
        done, value = outcome.get(timeout=seconds)
    except queue.Empty:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TemplateTimeoutError)
        )
        raise TemplateTimeoutError(f"took longer than {seconds:g} s") from None
    if done:
        result: _T = value
        return result
    raise value


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant writes, for training; here it is no more than
    its body."""

    tags = {"generation"}  # noqa: RUF012 (as the base class declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _BoundJoins(NodeTransformer):
    """Turns ``a ~ b`` into a filter call, since the sandbox does not see that operator."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 (jinja2's name)
        self.generic_visit(node)
        operands = nodes.Tuple(node.nodes, "load", lineno=node.lineno)
        return nodes.Filter(operands, "bounded_join", [], [], None, None, lineno=node.lineno)


def _bounded_join(values: tuple[Any, ...]) -> str:
    texts = [str(value) for value in values]
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise SecurityError("the result of '~' is too large")
    return "".join(texts)


def _bounded_numbers(work: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, refusing widths and counts that only a bomb has: C code holds the interpreter,
    so that its time limit would not end it."""

    @functools.wraps(work)  # jinja2 marks what a filter wants on the function
    def bounded(*arguments: Any, **named: Any) -> Any:
        lines = 1 + sum(value.count("\n") for value in arguments if isinstance(value, str))
        size = lines * max(_count(value) for value in (*arguments, *named.values()))
        if work is filters.do_format:
            size = max(size, _formatted(arguments[0], arguments[1:] or tuple(named.values())))
        if size > MAX_CHARACTERS:
            raise SecurityError("the result of a filter is too large")
        return work(*arguments, **named)

    return bounded


def _formatted(text: Any, values: Any) -> int:
    """At least the characters that ``text % values`` takes for its widths; 0 if not formatting."""
    if not isinstance(text, str) or "%" not in text:
        return 0
    widths = re.findall(r"%[^a-zA-Z%]*", text)
    stars = values if isinstance(values, tuple) else (values,)
    return sum(
        sum(min(int(digits), MAX_CHARACTERS + 1) for digits in re.findall(r"\d{1,9}", width))
        + ("*" in width) * sum(map(_count, stars))
        for width in widths
    )


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else 0


def _count(value: Any) -> int:
    return abs(value) if isinstance(value, int) else 0


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if _count(indent) > MAX_INDENT:
        raise SecurityError(f"an indent of {indent} is too large")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)
