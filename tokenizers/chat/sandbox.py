"""Chat templates come with checkpoints, so they are code from strangers: jinja2 in its sandbox,
with limits on what it may take."""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Any, NamedTuple, TypeVar

from jinja2 import Template, meta, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from edge_llm.tokenizers.chat import bounds
from edge_llm.tokenizers.chat.filters import OPERATORS, bounded, to_json

MAX_SOURCE_CHARACTERS = 250_000
MAX_MESSAGE_CHARACTERS = 2_000
MAX_SECONDS = 10.0

_T = TypeVar("_T")


class TemplateTimeoutError(Exception):
    """A template ran for longer than it may."""


class ToolPlace(Enum):
    """The places in which a template looks for tools."""

    NONE = auto()
    TOOLS = auto()
    XML_TOOLS = auto()  # SmolLM3
    SYSTEM_MESSAGE = auto()  # Phi-4-mini


class TemplateFacts(NamedTuple):
    """Facts of a template: the place in which it looks for tools; the names by which it looks
    things up; the texts that it looks for in others."""

    tools: ToolPlace
    names: frozenset[str]
    sought: frozenset[str]


class TextLengthError(SecurityError):
    """The text of a template is longer than it may be: of ``characters`` at least."""

    def __init__(self, characters: int, most: int) -> None:
        super().__init__(f"the text is longer than {most} characters")
        self.characters = characters


class Environment(ImmutableSandboxedEnvironment):
    """The environment that ``transformers`` gives a template: its whitespace rules, loop controls,
    ``generation`` blocks, JSON that is not escaped for HTML, ``raise_exception`` and
    ``strftime_now``.

    Unlike there, what a template builds is bounded (`bounds.py`), and a few filters and methods
    are missing that no template of a model needs.
    """

    intercepted_binops = frozenset({"*", "+", "**", "%"})

    def __init__(self, now: Callable[[], datetime] = datetime.now) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            finalize=_finalize,
        )
        self.filters["tojson"] = to_json
        for name in ("pprint", "striptags", "urlize", "wordwrap", "xmlattr"):
            del self.filters[name]
        self.filters = {name: bounded(name, work) for name, work in self.filters.items()}
        self.filters |= OPERATORS
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda layout: _strftime(now(), layout)

    def compile_bounded(self, source: str) -> Template:
        """Return the compiled template, with the operators bounded that the sandbox does not see.

        Raises:
            jinja2.TemplateError: the source is not a template.
        """
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise TemplateError(f"longer than {MAX_SOURCE_CHARACTERS} characters")
        bounds.start_counting()  # constants are folded
        tree = _Bound().visit(self.parse(source))
        return self.from_string(tree)

    def look_at(self, source: str) -> TemplateFacts:
        """Return what is known of a template without rendering it.

        Raises:
            jinja2.TemplateError: the source is not a template.
        """
        tree = self.parse(source)
        variables = meta.find_undeclared_variables(tree)
        names: set[Any] = {node.attr for node in tree.find_all(nodes.Getattr)}
        names |= {getattr(node.arg, "value", None) for node in tree.find_all(nodes.Getitem)}
        if "tools" in variables:
            place = ToolPlace.TOOLS
        elif "xml_tools" in variables:
            place = ToolPlace.XML_TOOLS
        else:
            place = ToolPlace.SYSTEM_MESSAGE if "tools" in names else ToolPlace.NONE
        texts = frozenset(name for name in names if isinstance(name, str))
        return TemplateFacts(place, texts, frozenset(_sought(tree)))

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join the text of a macro, or of a block that is assigned or filtered."""
        parts = list(parts)
        bounds.spend(sum(map(len, parts)), "a block")
        return "".join(parts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse an operation whose result would be huge, before it is computed."""
        bounds.check_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *arguments: Any, **named: Any) -> Any:  # noqa: N805 (jinja2's names, which no keyword of a template can be)
        """Refuse a call whose result would be huge."""
        bounds.check_call(__obj, arguments, named)
        result = super().call(__context, __obj, *arguments, **named)
        if isinstance(result, dict | list | tuple):
            bounds.weigh(result, "a call")
        return result


def render_bounded(template: Template, context: dict[str, Any], most: int) -> str:
    """Return the text of a template.

    Args:
        most: characters of it, counted while it is written.

    Raises:
        jinja2.TemplateError: the template rejects the context.
        TextLengthError: its text is too long.
    """
    bounds.start_counting()
    parts: list[str] = []
    length = 0
    for part in template.generate(context):
        parts.append(part)
        length += len(part)
        if length > most:
            raise TextLengthError(length, most)
    return "".join(parts)


def run_within(seconds: float, work: Callable[[], _T]) -> _T:
    """Return the result of ``work``, computed in a thread of its own, which is told to end when its
    time is up: an exception can be sent to another thread, and no other can be hit by it.

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


class _Bound(NodeTransformer):
    """Turns what the sandbox does not see into filter calls: ``a ~ b``, ``a[b:c]``, and lists and
    dictionaries written in the template."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 (jinja2's names)
        self.generic_visit(node)
        operands = nodes.Tuple(node.nodes, "load", lineno=node.lineno)
        return _filter("bounded_join", operands)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        limits = (node.arg.start, node.arg.stop, node.arg.step)
        return _filter(
            "bounded_slice",
            node.node,
            [nodes.Const(None, lineno=node.lineno) if limit is None else limit for limit in limits],
        )

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter("bounded_value", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter("bounded_value", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter("bounded_value", node) if node.ctx == "load" else node


# Methods and filters whose arguments are looked for in a text.
# fmt: off
_SEEKING = frozenset(
    {
        "count", "endswith", "find", "index", "lstrip", "partition", "removeprefix",
        "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split",
        "startswith", "strip",
    }
)
# fmt: on


def _sought(tree: nodes.Template) -> Iterator[str]:
    """Yield the texts that a template compares with, splits at, replaces and so on."""
    seeking: list[nodes.Node] = list(tree.find_all(nodes.Compare))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in _SEEKING:
            seeking += call.args
    for work in tree.find_all(nodes.Filter):
        if work.name in _SEEKING:
            seeking += work.args
    for node in seeking:
        for constant in [node, *node.find_all(nodes.Const)]:
            value = getattr(constant, "value", None)
            if isinstance(value, str):
                yield value


def _filter(name: str, value: nodes.Expr, arguments: Sequence[nodes.Expr] = ()) -> nodes.Filter:
    return nodes.Filter(value, name, list(arguments), [], None, None, lineno=value.lineno)


def _finalize(value: Any) -> Any:
    """Return what is written out."""
    bounds.weigh(value, "an expression")
    return value


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message)[:MAX_MESSAGE_CHARACTERS])


def _strftime(now: datetime, layout: str) -> str:
    if len(layout) > bounds.MAX_DATE_CHARACTERS:
        raise SecurityError("the layout of a date is too long")
    return now.strftime(layout)
