"""A self-contained HTML page of charts: no scripts, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edge_llm.charts.chart import Chart, number, printable
from edge_llm.charts.style import variables

_STYLE = """\
*{box-sizing:border-box}
body{margin:0 auto;max-width:44rem;padding:1.25rem 1rem 3rem;background:var(--paper);
color:var(--ink);font:16px/1.5 system-ui,-apple-system,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0 1rem}
h2{font-size:1.15rem;line-height:1.3;margin:2.5rem 0 .25rem}
p{margin:.25rem 0 .75rem}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;font-size:.9rem;margin:0}
.facts dt{color:var(--muted)}
.facts dd{margin:0}
code{font:.92em ui-monospace,monospace}
figure{margin:0}
svg{display:block;width:100%;max-width:38rem;height:auto}
.numbers{overflow-x:auto;margin-top:.5rem}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;width:100%}
caption{text-align:left;color:var(--muted);padding:.25rem 0}
th,td{padding:.2rem .6rem .2rem 0;text-align:left;border-bottom:1px solid var(--grid);
overflow-wrap:normal;vertical-align:top}
th{color:var(--muted);font-weight:600}
.number{text-align:right}
@media print{body{max-width:none;font-size:10pt;padding:0}svg{max-width:11cm}
figure{break-inside:avoid}
h2{break-after:avoid}tr{break-inside:avoid}.numbers{overflow:visible}}
"""


def page(
    title: str,
    *,
    facts: Sequence[tuple[str, str]],
    command: str,
    charts: Sequence[Chart],
    notes: Sequence[str] = (),
) -> str:
    """Return an HTML document: the title, ``facts`` (names and values), the command that made it,
    the charts, each with its numbers, and ``notes`` in plain words."""
    listed = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>\n" for name, value in facts)
    listed += f"<dt>command</dt><dd><code>{_text(command)}</code></dd>\n"
    parts = [_section(chart) for chart in charts]
    parts += [f"<p>{_text(note)}</p>\n" for note in notes]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Even a mistake of ours could fetch nothing.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(title)}</title>\n<style>\n{variables()}{_STYLE}</style>\n</head>\n"
        f'<body>\n<main>\n<h1>{_text(title)}</h1>\n<dl class="facts">\n{listed}</dl>\n'
        f"{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _section(chart: Chart) -> str:
    right = [
        all(row[column] is None or isinstance(row[column], int | float) for row in chart.rows)
        for column in range(len(chart.head))
    ]
    marks = [' class="number"' if numeric else "" for numeric in right]
    head = "".join(
        f'<th scope="col"{mark}>{_text(cell)}</th>'
        for cell, mark in zip(chart.head, marks, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{mark}>{escape(number(cell))}</td>" for cell, mark in zip(row, marks, strict=True)
        )
        + "</tr>\n"
        for row in chart.rows
    )
    return (
        f'<section>\n<h2 id="{chart.key}">{_text(chart.title)}</h2>\n<figure>\n{chart.svg}\n'
        f"<figcaption><p>{_text(chart.description)}</p></figcaption>\n</figure>\n"
        f'<div class="numbers" tabindex="0" role="region" aria-label="{_text(chart.title)}, '
        f'numbers">\n<table>\n<caption>The numbers of the chart</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n</section>\n"
    )


def _text(text: str) -> str:
    return escape(printable(text))
