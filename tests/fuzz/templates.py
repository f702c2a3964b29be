"""Damage to chat templates at the level of jinja's own grammar, so that most of them compile."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

_PIECE = re.compile(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", re.DOTALL)
_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|\d+|[A-Za-z_]\w*|\s+|.", re.DOTALL)
_KEYWORDS = frozenset(
    {
        "and", "or", "not", "in", "is", "if", "else", "elif", "for", "endfor", "set", "endset",
        "macro", "endmacro", "call", "endcall", "filter", "endfilter", "generation", "break",
        "endgeneration", "continue", "true", "false", "none", "defined", "loop",
    }
)  # fmt: skip
OPERANDS = (
    "messages", "messages[0]", "messages[0].content", "message", "loop.index", "tools", "bos_token",
    "x", "y", "none", "true", "0", "-1", "1", "2", "3.5", "65536", "10**9", "2**4095", "''", "'x'",
    "'%s %s'", "'%*d'", "'{:>999999999}'", "'{0[a]}'", "[]", "[x]", "{}", "{'a': x}", "(1, 2)",
    "range(10**9)", "range(3)", "namespace(a=1)", "ns", "cycler(1, 2)", "joiner(',')", "dict(a=x)",
    "messages.__class__", "''.__class__.__mro__", "self", "f", "caller", "strftime_now('%Y')",
    "raise_exception('no')", "'a' * 10**8", "[0] * 10**8", "'aaa'.replace('a', 'b' * 1000000)",
    "f(f)", "messages | list", "x | default(1)", "undefined_name",
)  # fmt: skip
SUFFIXES = (
    "|tojson", "|tojson(indent=99999)", "|join(', ')", "|list", "|length", "|trim", "|upper",
    "|sort", "|map('string')|list", "|map(attribute='content')|list", "|selectattr('role')|list",
    "|groupby('role')", "|batch(3)|list", "|batch(10**8, 'x')|list", "|slice(3)|list", "|first",
    "|center(10**8)", "|indent(10**6)", "|format(1, 2)", "|replace('', 'xxxxxxxx')", "|string",
    "|unique|list", "|sum", "|int", "|float", "|round(400)", "|reverse", "|dictsort", "|items|list",
    "|attr('__class__')", "|e", "|safe", "|wordcount", "|truncate(3)", "|random", "|min", "|abs",
    ".__init__", ".format(x)", ".format_map(x)", ".split('')", ".split()", ".join(x)", ".zfill(9)",
    ".items()", ".append(1)", ".get('a')", ".content", ".encode()", ".mro()", "[0]", "[-1]", "[:2]",
    "[::-1]", "['content']", "[10**9]", " + x", " ~ x", " * 1000", " % x", " ** 9", " // 0",
    " in messages", " is string", " is mapping", " if x else y", " and x", "(x)", "()", "(*x)",
    "(**x)", " == 1",
)  # fmt: skip
STATEMENTS = (
    "{% set x = x ~ x %}", "{% set x = [x, x] %}", "{% set x = {'a': x} %}", "{% set ns.a = x %}",
    "{% set x = messages %}", "{% set x = x + x %}", "{{ x }}", "{{ f(1) }}", "{% break %}",
    "{% continue %}", "{% set y = x | string %}", "{{ messages }}", "{% set ns.a = ns %}",
)  # fmt: skip
WRAPPERS = (
    ("{% for x in range(9) %}", "{% endfor %}"), ("{% for x in range(10**7) %}", "{% endfor %}"),
    ("{% for x in messages recursive %}", "{{ loop(messages) }}{% endfor %}"),
    ("{% for x in x %}", "{% else %}{{ y }}{% endfor %}"), ("{% if x %}", "{% endif %}"),
    ("{% set x %}", "{% endset %}"), ("{% macro f(x, y=1) %}", "{% endmacro %}{{ f(x) }}"),
    ("{% call f(1) %}", "{% endcall %}"), ("{% filter upper %}", "{% endfilter %}"),
    ("{% macro f(x) %}{{ f(x) }}", "{% endmacro %}{{ f(1) }}"), ("{% with x=x %}", "{% endwith %}"),
    ("{% generation %}", "{% endgeneration %}"), ("{% block b %}", "{% endblock %}"),
    ("{% raw %}", "{% endraw %}"), ("{% autoescape true %}", "{% endautoescape %}"),
)  # fmt: skip


def mutate_template(random: Random, text: str, others: Sequence[str]) -> str:
    """``text`` after one to six changes, each of which leaves blocks balanced."""
    pieces = [piece for piece in _PIECE.split(text) if piece]
    for _ in range(min(6, 1 + int(random.expovariate(0.7)))):
        change = random.randrange(6)
        at = random.randrange(len(pieces) + 1)
        if change <= 2:
            _change_expression(random, pieces)
        elif change == 3:
            pieces.insert(at, random.choice(STATEMENTS))
        elif change == 4:
            start, end = _balanced(random, pieces, at)
            head, tail = random.choice(WRAPPERS)
            pieces[start:end] = [head, *pieces[start:end], tail]
        else:
            source = [piece for piece in _PIECE.split(random.choice(others)) if piece]
            start, end = _balanced(random, source, random.randrange(len(source) + 1))
            pieces[at:at] = source[start:end]
            if random.random() < 0.3:
                start, end = _balanced(random, pieces, random.randrange(len(pieces) + 1))
                del pieces[start:end]
    return "".join(pieces)


def _change_expression(random: Random, pieces: list[str]) -> None:
    """Puts another operand in place of one, or something behind it."""
    places = [i for i, piece in enumerate(pieces) if piece.startswith(("{{", "{%"))]
    if not places:
        return
    at = random.choice(places)
    tokens: list[str] = _TOKEN.findall(pieces[at])
    # The first word of a statement is its name, the one behind `set`, `for` or `macro` a target.
    skip = 2 if pieces[at].startswith("{%") else 0
    operands = [
        i
        for i, token in enumerate(tokens)
        if (token[0].isalnum() or token[0] in "_'\"") and token not in _KEYWORDS
    ][max(0, skip - 1) :]
    if not operands:
        return
    i = random.choice(operands)
    if random.random() < 0.5 and tokens[i - 1] not in (".", "|"):
        tokens[i] = f"({random.choice(OPERANDS)})"
    else:
        tokens[i] += random.choice(SUFFIXES)
    pieces[at] = "".join(tokens)


def _balanced(random: Random, pieces: list[str], start: int) -> tuple[int, int]:
    """A stretch from ``start`` on in which every block that begins also ends."""
    depth, ends = 0, [start]
    for i in range(start, len(pieces)):
        name = re.match(r"\{%[-+]?\s*(\w+)", pieces[i])
        word = name[1] if name else ""
        if word.startswith("end"):
            depth -= 1
        elif word in ("for", "if", "macro", "call", "filter", "generation", "with", "block"):
            depth += 1
        elif word in ("elif", "else") and depth == 0:
            break
        if depth < 0:
            break
        if depth == 0:
            ends.append(i + 1)
    return start, random.choice(ends)
