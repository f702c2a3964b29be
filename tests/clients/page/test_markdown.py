"""Markdown as elements: what each construct becomes, however its text comes in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

# The elements' HTML as the browser writes it, without what every block has (dir, tabindex, …).
SHOW = """
async (text) => {
  const { Markdown } = await import("/page/markdown.js");
  const root = document.createElement("div");
  new Markdown(root).update(text);
  for (const part of root.querySelectorAll("figcaption")) part.remove();
  for (const part of root.querySelectorAll("*")) {
    for (const name of ["dir", "tabindex", "title", "rel", "target"]) part.removeAttribute(name);
  }
  return root.innerHTML;
}
"""


def code(inner: str) -> str:
    return f'<figure class="code"><pre><code>{inner}</code></pre></figure>'


def colour(kind: str, text: str) -> str:
    return f'<span class="t-{kind}">{text}</span>'


def link(address: str, text: str | None = None) -> str:
    return f'<a href="{address}">{text or address}</a>'


def ordered(start: int) -> str:
    return f'<ol start="{start}">'


QUOTED = "'a'"
MATH = '<span class="math">'
TASK = '<li class="task"><input type="checkbox" disabled="">'

CASES = [
    ("plain", "<p>plain</p>"),
    ("a\nb\n\nc", "<p>a<br>b</p><p>c</p>"),
    ("*a* _b_ ~~c~~", "<p><em>a</em> <em>b</em> <del>c</del></p>"),
    ("**a** __b__", "<p><strong>a</strong> <strong>b</strong></p>"),
    ("***a***", "<p><em><strong>a</strong></em></p>"),
    ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
    ("*a **b** c*", "<p><em>a <strong>b</strong> c</em></p>"),
    ("snake_case_name 2 * 3 * 4 a ** b", "<p>snake_case_name 2 * 3 * 4 a ** b</p>"),
    ("**open", "<p>**open</p>"),
    ("*a " * 40 + "**b**", f"<p>{'*a ' * 40}<strong>b</strong></p>"),
    ("[0, 1) *a* https://a.example", f"<p>[0, 1) <em>a</em> {link('https://a.example')}</p>"),
    (
        "[x https://a.example](https://b.example)",
        f"<p>{link('https://b.example', 'x https://a.example')}</p>",
    ),
    ("***", "<hr>"),
    ("`a` ``b`c`` `open", "<p><code>a</code> <code>b`c</code> `open</p>"),
    ("`*a*` *`b`*", "<p><code>*a*</code> <em><code>b</code></em></p>"),
    (r"\*a\* \\ \a", r"<p>*a* \ \a</p>"),
    ("# A\n## B #\n###### C\n#no", "<h3>A</h3><h4>B</h4><h6>C</h6><p>#no</p>"),
    ("A\n===\nB\n---", "<h3>A</h3><h4>B</h4>"),
    ("---\n* * *", "<hr><hr>"),
    ("> a\n> b\n\nc", "<blockquote><p>a<br>b</p></blockquote><p>c</p>"),
    ("> > b", "<blockquote><blockquote><p>b</p></blockquote></blockquote>"),
    ("- a\n- b\n  c", "<ul><li>a</li><li>b<br>c</li></ul>"),
    ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
    (
        "- a\n  - b\n    - c\n- d",
        "<ul><li>a<ul><li>b<ul><li>c</li></ul></li></ul></li><li>d</li></ul>",
    ),
    ("1. a\n  - b\n2. c", f"{ordered(1)}<li>a<ul><li>b</li></ul></li><li>c</li></ol>"),
    ("3) a\n4) b", f"{ordered(3)}<li>a</li><li>b</li></ol>"),
    ("a\n- b", "<p>a</p><ul><li>b</li></ul>"),
    ("in\n1998. b", "<p>in<br>1998. b</p>"),
    ("- [ ] a\n- [x] b", f"<ul>{TASK}a</li>{TASK}b</li></ul>"),
    ("- a\n\n  ```\n  x\n  ```\n- b", f"<ul><li><p>a</p>{code('x')}</li><li><p>b</p></li></ul>"),
    ("```\na < b\n\n  c\n```\nd", f"{code(chr(10).join(['a &lt; b', '', '  c']))}<p>d</p>"),
    ("~~~\n```\n~~~", code("```")),
    ("```python\nx = 'a' # b", code(f"x = {colour('string', QUOTED)} {colour('comment', '# b')}")),
    ("[a](https://b.example/c_(d)) e", f"<p>{link('https://b.example/c_(d)', 'a')} e</p>"),
    ('[*a*](https://b.example "t")', f"<p>{link('https://b.example', '<em>a</em>')}</p>"),
    ("see https://a.example/b_c_d.", f"<p>see {link('https://a.example/b_c_d')}.</p>"),
    ("<https://a.example>", f"<p>{link('https://a.example')}</p>"),
    ("(https://a.example/(b))", f"<p>({link('https://a.example/(b)')})</p>"),
    ("![a](https://b.example/c.png)", f"<p>{link('https://b.example/c.png', 'a')}</p>"),
    ("[a] (b) [c](d) [1]", "<p>[a] (b) [c](d) [1]</p>"),
    ("**[a](https://b.example)**", f"<p><strong>{link('https://b.example', 'a')}</strong></p>"),
    (
        "|a|b|\n|-|:-:|\n|1|`2`|\n|3|\n\nc",
        '<div class="table"><table><thead><tr><th class="left">a</th><th class="center">b</th></tr>'
        '</thead><tbody><tr><td class="left">1</td><td class="center"><code>2</code></td></tr>'
        '<tr><td class="left">3</td><td class="center"></td></tr></tbody></table></div><p>c</p>',
    ),
    ("a | b", "<p>a | b</p>"),
    (r"\(a_1 * b_1\) $$c_1$$", f"<p>{MATH}a_1 * b_1</span> {MATH}c_1</span></p>"),
    ("\\[\na_1\n\\]\nb", '<div class="math">a_1</div><p>b</p>'),
    ("a $5 and $6 b", "<p>a $5 and $6 b</p>"),
    ("&amp; <b>x</b>", "<p>&amp;amp; &lt;b&gt;x&lt;/b&gt;</p>"),
]


@pytest.fixture(scope="module")
def blank(browser: Any, scripted: Any) -> Iterator[Any]:
    """The page, to try its modules in."""
    page = browser.new_page()
    page.goto(f"{scripted.url}/")
    yield page
    page.close()


@pytest.mark.parametrize(("text", "html"), CASES, ids=[repr(text)[:40] for text, _ in CASES])
def test_constructs(blank: Any, text: str, html: str) -> None:
    assert blank.evaluate(SHOW, text) == html


# Returns the first beginning of a text that comes out otherwise when it has grown, null if none.
GROWS = """
  async (texts) => {
  const { Markdown } = await import("/page/markdown.js");
  const shown = (text) => {
    const root = document.createElement("div");
    new Markdown(root).update(text);
    return root.innerHTML;
  };
  for (const text of texts) {
    const root = document.createElement("div");
    const growing = new Markdown(root);
    for (let end = 1; end <= text.length; end += 1) {
      growing.update(text.slice(0, end));
      if (root.innerHTML !== shown(text.slice(0, end))) return text.slice(0, end);
    }
  }
  return null;
}
"""


def test_a_text_that_grows_becomes_what_it_is_as_a_whole(blank: Any) -> None:
    """By characters, and for every beginning of it."""
    texts = [text for text, _ in CASES] + ["\n\n".join(text for text, _ in CASES)]
    assert blank.evaluate(GROWS, texts) is None


PARTS = [
    *(
        "a",
        "b c",
        " ",
        "  ",
        "    ",
        "\n",
        "\n\n",
        "- ",
        "* ",
        "1. ",
        "2. ",
        "> ",
        "# ",
        "---",
        "===",
    ),
    *(
        "```",
        "~~~",
        "`",
        "*",
        "**",
        "_",
        "~~",
        "[",
        "](",
        ")",
        "https://a.example",
        "|",
        "|-|",
        "- [ ] ",
    ),
    *("\\", "$$", "\\[", "\\]", "<b>", "!", "&amp;", "\t", "é", "😀"),
]


@pytest.mark.parametrize("seed", [*range(10), 46, 140, 141, 143, 190])
def test_random_texts_grow_as_well(blank: Any, seed: int) -> None:
    chance = random.Random(seed)
    texts = ["".join(chance.choices(PARTS, k=40)) for _ in range(100)]
    assert blank.evaluate(GROWS, texts) is None


def test_what_is_read_already_does_not_move(blank: Any) -> None:
    kept = blank.evaluate(
        """async () => {
          const { Markdown } = await import("/page/markdown.js");
          const root = document.createElement("div");
          const growing = new Markdown(root);
          growing.update("a\\n\\nb\\n\\nc\\n\\n");
          const [first, second] = root.children;
          growing.update("a\\n\\nb\\n\\nc\\n\\nand more\\n\\n- d\\n");
          const same = root.children[0] === first && root.children[1] === second;
          growing.update("something else");
          return [same, root.textContent];
        }"""
    )
    assert kept == [True, "something else"]


SIZE = 20_000
HOSTILE = {
    "stars": "*" * SIZE,
    "open emphasis": "*a " * SIZE,
    "closed emphasis": "*a " * SIZE + "a* " * SIZE,
    "mixed emphasis": "*a _b " * SIZE + "c_ d* " * SIZE,
    "brackets": "[" * SIZE,
    "brackets around": "[" * SIZE + "](https://a.example)" * 100,
    "links without end": "[a](" * SIZE,
    "backticks": "".join("`" * (i % 200) + " " for i in range(1500)),
    "formulas without end": "\\( " * SIZE,
    "blocks of formulas": "\\[ a\n" * SIZE,
    "dollars": "$$ a" * SIZE,
    "addresses": "https://" * SIZE,
    "angles": "<https://" * SIZE,
    "parentheses": "https://a.example/" + "(" * SIZE + ")" * SIZE,
    "quotes": ">" * SIZE,
    "lists": "".join("  " * (i % 500) + "- a\n" for i in range(3000)),
    "markers": "- " * SIZE,
    "lazy lines": "- a\n" + "b\n" * SIZE,
    "rules": "- - - x\n" * SIZE,
    "spaces": "#" + " " * SIZE + "#" * SIZE + " " * SIZE + "x",
    "pipes": "|" * SIZE + "\n" + "|-" * SIZE,
    "rows": "|a|\n|-|\n" * 3000,
    "fences": "```\n" * 3000,
    "code": "```js\n" + "/* " * SIZE,
    "strings": "```js\n" + "'\\" * SIZE,
    "digits": "```py\n" + "1_" * SIZE,
    "controls": "".join(map(chr, range(32))) * 100 + "\u202e\u2066\ufeff\ud83d" * 100,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_take_neither_time_nor_depth(blank: Any, name: str) -> None:
    """Work that is worse than linear would not come to an end in time, and nesting without bound
    would break the layout."""
    depth, length = blank.evaluate(
        """async (text) => {
          const { Markdown } = await import("/page/markdown.js");
          const root = document.createElement("div");
          document.body.append(root);
          new Markdown(root).update(text);
          let deepest = 0;
          const walk = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT);
          for (let node = walk.nextNode(); node; node = walk.nextNode()) {
            let depth = 0;
            for (let at = node; at !== root; at = at.parentNode) depth += 1;
            deepest = Math.max(deepest, depth);
          }
          root.getBoundingClientRect();
          root.remove();
          return [deepest, root.textContent.length];
        }""",
        HOSTILE[name],
    )
    assert depth < 120
    assert length or name in ("stars", "rules", "markers")
