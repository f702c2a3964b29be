"""ChatTemplate: what templates may and may not do."""

from __future__ import annotations

import threading
import tracemalloc
from datetime import datetime
from enum import StrEnum
from typing import Any

import pytest

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.bounds import MAX_CHARACTERS
from edge_llm.tokenizers.chat.template import ChatTemplate

USER = [{"role": "user", "content": "hi"}]


def render(source: str, messages: Any = USER, seconds: float = 10.0, **kwargs: Any) -> str:
    return ChatTemplate(source, bos=None, eos=None, seconds=seconds).render(messages, **kwargs)


def test_blocks_leave_no_whitespace() -> None:
    source = (
        "{% for m in messages %}\n  {% if true %}\n[{{ m.role }}]\n  {% endif %}\n{% endfor %}\n"
    )
    assert render(source) == "[user]\n"


def test_variables() -> None:
    template = ChatTemplate("{{ bos_token }}|{{ eos_token }}|{{ x }}", bos="<s>", eos="</s>")
    assert template.render(USER, x=1) == "<s>|</s>|1"
    absent = ChatTemplate("{{ bos_token is defined }}", bos=None, eos="")
    assert absent.render(USER) == "False"


def test_tojson_escapes_no_html() -> None:
    tools = [{"name": "é <b> & 'c'"}]
    assert render("{{ tools[0] | tojson }}", tools=tools) == '{"name": "é <b> & \'c\'"}'
    assert render("{{ tools[0] | tojson(indent=1) }}", tools=tools).startswith('{\n "name"')


def test_loop_controls_generation_and_date() -> None:
    source = (
        "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
        "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        "{% generation %}{{ 1 ~ 'a' ~ none }}{% endgeneration %}"
    )
    assert render(source) == "021aNone"
    assert render("{{ strftime_now('%Y') }}") in {
        str(datetime.now().year), str(datetime.now().year - 1),
    }  # fmt: skip


def test_reasoning_under_every_name() -> None:
    source = "{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}"
    for name in ("reasoning_content", "thinking", "reasoning"):
        assert render(source, [{"role": "assistant", name: "hm"}]) == "hm|hm"


def test_values_are_plain() -> None:
    class Role(StrEnum):
        USER = "user"

    assert render("{{ messages[0].role }}", [{"role": Role.USER, "content": ("a",)}]) == "user"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{% if %}", "does not compile: Expected an expression"),
        ("{{ raise_exception('roles must alternate') }}", "render: roles must alternate"),
        ("{{ messages[0].a.b }}", "has no attribute 'a'"),
        ("{{ 'a' + 1 }}", "TypeError"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ 'a' * 10**10 }}", "result of '\\*' is too large"),
        ("{{ 'x'.ljust(10**9) }}", "result of 'ljust' is too large"),
        ("{{ ('a' * 10**5).replace('a', 'b' * 10**5) }}", "result of 'replace' is too large"),
        ("{{ ('a' * 10**5).join('b' * 10**5) }}", "result of 'join' is too large"),
        ("{{ '{:1000000000}'.format(1) }}", "result of 'format' is too large"),
        ("{{ '%1000000000d' % 1 }}", "result of '%' is too large"),
        ("{{ '%*d' % (1000000000, 1) }}", "result of '%' is too large"),
        ("{{ '%1000000000d'|format(1) }}", "result of a filter .* is too large"),
        ("{{ 'x'|center(10**9) }}", "result of a filter .* is too large"),
        ("{{ 'x'|indent(width=10**9) }}", "result of a filter .* is too large"),
        ("{{ [1]|batch(10**9, 0)|list }}", "result of a filter .* is too large"),
        ("{{ messages|tojson(indent=10**8) }}", "indent of 100000000 is too large"),
        ("{{ [1] * 10**10 }}", "result of '\\*' is too large"),
        ("{{ (9 ** 9) ** (9 ** 9) }}", r"result of '\*\*' is too large"),
        ("{% set n = namespace(s='aaaa') %}{% for i in range(60) %}"
         "{% set n.s = n.s ~ n.s %}{% endfor %}", "result of '~' is too large"),
        ("{% set n = namespace(s='aaaa') %}{% for i in range(60) %}"
         "{% set n.s = n.s + n.s %}{% endfor %}", r"result of '\+' is too large"),
        ("{% for i in range(9999) %}{{ 'a' * 100000 }}{% endfor %}",
         f"longer than {MAX_CHARACTERS}"),
        ("x" * 250_001, "longer than 250000"),
        ("{% set n = namespace(s='aaaa') %}{% for i in range(60) %}{% set n.s %}"
         "{{ n.s }}{{ n.s }}{% endset %}{% endfor %}", "result of a block is too large"),
        ("{% macro m(s) %}{{ s }}{{ s }}{% endmacro %}{% set n = namespace(s='aaaa') %}"
         "{% for i in range(60) %}{% set n.s = m(n.s) %}{% endfor %}", "a block is too large"),
        ("{% set n = namespace(s=[1]) %}{% for i in range(60) %}"
         "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}", "result of a list is too large"),
        ("{% set n = namespace(s={}) %}{% for i in range(60) %}"
         "{% set n.s = {1: n.s, 2: n.s} %}{% endfor %}", "result of a list is too large"),
        ("{% set n = namespace(s=1) %}{% for i in range(60) %}"
         "{% set n.s = dict(a=n.s, b=n.s) %}{% endfor %}", "result of 'dict' is too large"),
        ("{% macro m() %}{{ m(varargs, varargs) }}{% endmacro %}{{ m(1, 1) }}",
         "result of 'Macro' is too large"),
        ("{% set n = namespace() %}{% set n.x = [n] %}{{ n.x }}", "is too large"),
        ("{% set n = namespace(s=7) %}{% for i in range(60) %}"
         "{% set n.s = n.s * n.s %}{% endfor %}", "result of '\\*' is too large"),
        ("{{ 1|round(-99999999) }}", "filter 'round' is too large"),
        ("{{ (1).to_bytes(999999999, 'big') }}", "'to_bytes' of a int is not for templates"),
        ("{{ 'a'.translate({97: 'b'}) }}", "'translate' of a text is not for templates"),
        ("{{ ('a' * 10**5)|replace('a', 'b' * 10**5) }}", "filter 'replace' is too large"),
        ("{{ range(10**5)|map('string')|join('b' * 10**5) }}", "filter 'join' is too large"),
        ("{{ ('a' * 10**7)|list }}", "filter 'list' is too large"),
        ("{{ ('a ' * 10**6).split() }}", "'split' is too large"),
        ("{{ [[1]]|sum(start=[]) }}", "adds numbers alone"),
        ("{{ range(10**5)|list|tojson(separators=['a' * 10**6, ':']) }}", "tojson is too large"),
        ("{{ '{:{}}'.format(1, 999999999) }}", "result of 'format' is too large"),
        ("{{ '{0}{0}{0}'.format('a' * 10**7) }}", "result of 'format' is too large"),
        ("{{ ('%(a)s' * 10**5) % {'a': 'b' * 10**5} }}", "result of '%' is too large"),
        ("{{ '%.999999999f' % 1.0 }}", "result of '%' is too large"),
        ("{{ strftime_now('%c' * 10**5) }}", "layout of a date is too long"),
        ("{% set s = 'a' * 10**7 %}{% set n = namespace(l=[]) %}{% for i in range(999) %}"
         "{% set n.l = n.l + [s[i:]] %}{% endfor %}", "result of a slice is too large"),
        ("{% set s = 'a' * 10**7 %}{% set n = namespace(l=[]) %}{% for i in range(999) %}"
         "{% set n.l = n.l + [s.upper()] %}{% endfor %}", "result of 'upper' is too large"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}", "RecursionError"),
        ("{{ 'a'|urlize }}", "No filter named 'urlize'"),
        ("{{ (''|attr('__class__')).x }}", "unsafe"),
        ("{{ '{0.__class__.x}'.format('') }}", "unsafe"),
        ("{{ messages|attr('append')(1) }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ range(10**9) }}", "Range too big"),
        ("{{ " + "-" * 9999 + "1 }}", "RecursionError"),
        ("{{ 'a'" + "|trim" * 9999 + " }}", "RecursionError"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "RecursionError"),
    ],
)  # fmt: skip
def test_refused(source: str, complaint: str) -> None:
    with pytest.raises(TemplateError, match=complaint):
        render(source)


def test_messages_of_errors_are_bounded() -> None:
    for source in ("{{ raise_exception('x' * 10**6) }}", "{{ messages['x' * 10**6].y }}"):
        with pytest.raises(TemplateError) as caught:
            render(source)
        assert len(str(caught.value)) < 2100


def test_memory_is_bounded() -> None:
    source = (
        "{% set n = namespace(l=[]) %}{% for i in range(9999) %}"
        "{% set n.l = n.l + ['\U0001f600' * 15000000] %}{% endfor %}"
    )
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError, match="is too large"):
            render(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 2**29 < peak < 1.1 * 2**30


def test_endless_template_is_ended() -> None:
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match=r"took longer than 0\.2 s"):
        render(endless, seconds=0.2)
    workers = [t for t in threading.enumerate() if t.name == "chat-template"]
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ tools|length }}", "1"),
        ("{% if tools is not none %}{{ tools[0].function.name }}{% endif %}", "f"),
        ("{% if xml_tools %}{{ xml_tools[:][0]|string }}{% endif %}", str(TOOLS[0])),
        ("{% for m in messages %}{{ m.role }}{% if 'tools' in m %}{{ m['tools'] }}{% endif %}"
         "{% endfor %}", 'system[{"name": "f", "parameters": {}}]user'),
    ],
)  # fmt: skip
def test_tools_go_where_the_template_looks(source: str, expected: str) -> None:
    assert render(source, tools=TOOLS) == expected


def test_tools_in_a_system_message_that_is_there() -> None:
    source = "{% for m in messages %}{{ m.role }}{{ m.content }}{{ m['tools'] }}{% endfor %}"
    messages = [{"role": "system", "content": "!"}, *USER]
    expected = 'system![{"name": "f", "parameters": {}}]userhi'
    assert render(source, messages, tools=TOOLS) == expected
    own = [{"role": "system", "content": "!", "tools": "own"}]
    assert render(source, own, tools=TOOLS) == "system!own"


def test_tools_without_a_place() -> None:
    assert render("{{ messages|length }}", tools=[]) == "1"
    with pytest.raises(TemplateError, match="has no place for tools"):
        render("{{ messages|length }}", tools=TOOLS)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        (["text"], "a message must be an object, got str"),
        ([{"role": "user", "content": object()}], "must be JSON values, got object"),
    ],
)
def test_messages_that_are_not_json(messages: Any, complaint: str) -> None:
    with pytest.raises(TemplateError, match=complaint):
        render("{{ messages }}", messages)


def test_text_of_a_message_is_no_format() -> None:
    message = {"role": "user", "content": " at 10:99999999999, 100%9999999999d "}
    source = (
        "{{ messages[0].content.strip() }}{{ '{:>4}'.format(1) }}{{ '%03d' % 7 }}{{ 7 % 4 }}"
        "{{ 'a'|indent(2) }}{{ 'a-b'.replace('-', '+') }}{{ ', '.join(['a', 'b']) }}"
        "{{ messages[0].content|indent(2)|length }}"
    )
    assert render(source, [message]) == "at 10:99999999999, 100%9999999999d   10073aa+ba, b36"
