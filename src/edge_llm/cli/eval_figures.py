"""The figures of evaluations: of one program with their errors, of several side by side, and what
is kept of them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import say, table

if TYPE_CHECKING:
    from edge_llm.program.file import Program
    from edge_llm.runner.evaluation.quality import Quality
    from edge_llm.runner.evaluation.tasks.results import Score

# Values and their standard errors, by what they are called.
Figures = Mapping[str, tuple[float, float | None]]


def text_figures(quality: Quality) -> Figures:
    """Return the figures of a text."""
    figures = {"perplexity": (quality.perplexity.value, quality.perplexity.error)}
    if (found := quality.divergence) is not None:
        for name, estimate in (
            ("perplexity of the reference", found.reference_perplexity),
            ("perplexity, program / reference", found.perplexity_ratio),
            ("KL divergence, mean (nats)", found.mean),
            ("KL divergence, median", found.median),
            ("KL divergence, 99th percentile", found.p99),
        ):
            figures[name] = (estimate.value, estimate.error)
        figures["KL divergence, maximum"] = (found.maximum, None)
        figures["same likeliest token"] = (found.top1.value, found.top1.error)
    return figures


def score_figures(score: Score) -> Figures:
    """Return the figures of a task."""
    figures = {"accuracy": (score.accuracy.value, score.accuracy.error)}
    if score.share is not None:
        figures["arguments right"] = (score.share.value, score.share.error)
    return figures


def one_by_one(figures: Figures) -> str:
    """Return the figures of a program as a table."""
    rows = [
        (name, f"{value:.4f}", "-" if error is None else f"{error:.4f}")
        for name, (value, error) in figures.items()
    ]
    return table(("", "VALUE", "STANDARD ERROR"), rows)


def side_by_side(names: Sequence[str], columns: Sequence[Figures]) -> str:
    """Return the figures of several programs, a column each."""
    labels = list(dict.fromkeys(label for figures in columns for label in figures))
    rows = [(label, *(_cell(figures.get(label)) for figures in columns)) for label in labels]
    return table(("", *names), rows)


def adapter_shown(digests: Mapping[str, bytes]) -> str:
    """Return the name of the one adapter and the beginning of its digest."""
    [(name, digest)] = digests.items()
    return f"{name} {digest.hex()[:16]}"


def keep(
    program: Program, what: Mapping[str, Any], name: str, items: int, figures: Figures
) -> None:
    """Keep the figures for `inspect` and ``--compare``: ``what`` was evaluated, on ``items``, by
    its ``name``. Where they cannot be kept, that is said and no error."""
    from edge_llm import __version__
    from edge_llm.catalogue import remember
    from edge_llm.errors import SourceError

    record = {
        "what": dict(what),
        "name": name,
        "items": items,
        "figures": {label: list(pair) for label, pair in figures.items()},
        "version": __version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    try:
        remember(program.digest, record)
    except SourceError as error:
        say(f"{error}; the figures are not kept")


def kept_side_by_side(programs: Sequence[Program]) -> str:
    """Return what former evaluations have found out about programs, a table for each thing that was
    evaluated on more than one of them, and then the others."""
    from edge_llm.catalogue import evaluations_of

    found: dict[str, tuple[str, dict[int, Figures]]] = {}
    for index, program in enumerate(programs):
        for record in evaluations_of(program.digest):
            key = repr(sorted(record["what"].items()))
            _, columns = found.setdefault(key, (described(record), {}))
            columns[index] = {
                label: (pair[0], pair[1]) for label, pair in record["figures"].items()
            }
    parts = [
        f"{title}\n"
        + side_by_side([programs[index].path.name for index in columns], list(columns.values()))
        for title, columns in sorted(found.values(), key=lambda each: -len(each[1]))
    ]
    return "\n\n".join(parts)


def kept_of(program: Program) -> str:
    """Return what former evaluations have found out about a program, a line each; nothing if there
    was none."""
    from edge_llm.catalogue import evaluations_of

    return "\n".join(
        f"{described(record)}: "
        + ", ".join(
            f"{label} {_cell((pair[0], pair[1]))}" for label, pair in record["figures"].items()
        )
        for record in evaluations_of(program.digest)
    )


def described(record: Mapping[str, Any]) -> str:
    """Return a line on what a record is of, with the beginning of its data's digest."""
    what = record["what"]
    settings = [
        key.replace("_", " ") + ("" if value is True else f" {value}")
        for key, value in what.items()
        if key not in ("task", "data", "reference") and value not in (None, False)
    ]
    data = f"sha256 {str(what.get('data'))[:16]}"
    if what.get("reference"):
        settings.append(f"beside {str(what['reference'])[:16]}")
    items = "windows" if what.get("task") == "text" else "items"
    counted = f"{record.get('items')} {items}"
    return f"{what.get('task')} {record.get('name')} ({', '.join([data, counted, *settings])})"


def _cell(pair: tuple[float, float | None] | None) -> str:
    if pair is None:
        return "-"
    value, error = pair
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"
