"""``edge-llm eval``: perplexity of a program on a text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import Progress, print_json, say
from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_llm.api import LLM

_BLOCK = 64  # rows at once: what numpy makes on the way then stays in the cache


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "eval",
        help="perplexity of a program on a text",
        description="Perplexity of the program file itself: non-overlapping windows from the "
        "start of the text, no BOS, positions 1 to context-1 of each window scored.",
    )
    parser.add_argument("--model", "-m", required=True, metavar="FILE|NAME")
    parser.add_argument("--text", required=True, metavar="FILE", help="UTF-8 text")
    parser.add_argument("--context", type=int, default=1024, help="tokens a window (default: 1024)")
    parser.add_argument("--windows", type=int, default=20, help="at most this many (default: 20)")
    parser.add_argument("--threads", type=int, default=0, help="default: the physical cores")
    parser.add_argument("--backend", choices=("native", "torch"), default="native")
    parser.add_argument("--json", action="store_true", help="print {perplexity, tokens} as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from edge_llm.api import load
    from edge_llm.catalogue import find_program

    try:
        text = Path(arguments.text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {arguments.text} as UTF-8 text: {error}") from error
    progress = Progress()
    with load(
        find_program(arguments.model),
        threads=arguments.threads,
        backend=arguments.backend,
        max_sequences=1,
    ) as llm:
        ids = llm.tokenizer.encode(text, add_bos=False)
        try:
            result, tokens = perplexity(
                llm,
                ids,
                arguments.context,
                arguments.windows,
                lambda done, total: progress("eval", done, total),
            )
        finally:
            progress.close()
    if arguments.json:
        print_json({"perplexity": result, "tokens": tokens})
    else:
        say(f"{tokens} tokens scored")
        print(f"perplexity {result:.4f}")
    return 0


def perplexity(
    llm: LLM,
    ids: Sequence[int],
    context: int,
    windows: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[float, int]:
    """exp of the mean negative log-likelihood over the first ``windows`` whole windows of
    ``context`` tokens, and the number of tokens scored (``context - 1`` a window).

    Raises:
        RequestError: the text is shorter than one window, or the window is out of range.
    """
    import numpy as np

    if not 2 <= context <= llm.context:
        raise RequestError(f"--context is {context}, expected 2 to {llm.context}")
    if windows < 1:
        raise RequestError(f"--windows is {windows}, expected at least 1")
    count = min(windows, len(ids) // context)
    if count == 0:
        raise RequestError(f"the text has {len(ids)} tokens, expected at least {context}")
    total = 0.0
    for window in range(count):
        part = np.asarray(ids[window * context : (window + 1) * context])
        logits = llm.logits(part)[:-1]  # [context - 1, vocab]
        for begin in range(0, context - 1, _BLOCK):
            rows = logits[begin : begin + _BLOCK]
            targets = rows[np.arange(len(rows)), part[begin + 1 : begin + 1 + len(rows)]]
            peak = rows.max(axis=1)
            sums = np.exp(rows - peak[:, None]).sum(axis=1, dtype=np.float64)
            total += float((np.log(sums) + peak - targets).sum())
        progress(window + 1, count)
    tokens = count * (context - 1)
    return float(np.exp(total / tokens)), tokens
