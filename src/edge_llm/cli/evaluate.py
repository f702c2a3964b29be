"""``edge-llm eval``: perplexity of a program on a text, and its distance from a reference."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import Progress, print_json, say, table
from edge_llm.cli.html import add_html_argument, check_page
from edge_llm.cli.programs import add_model_argument, examined_program
from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.cli.eval_page import Evaluated
    from edge_llm.program.file import Program
    from edge_llm.runner.evaluation.quality import Divergence, Estimate, Quality


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "eval",
        help="perplexity of a program on a text, and its distance from a reference",
        description="Perplexity of the program file itself: non-overlapping windows from the "
        "start of the text, no BOS, every token of a window but the first scored. With --reference "
        "also the Kullback-Leibler divergence from that program, whose logits are computed beside. "
        "Standard errors are over windows.",
    )
    add_model_argument(parser)
    parser.add_argument("--text", required=True, metavar="FILE", help="UTF-8 text")
    parser.add_argument(
        "--reference",
        metavar="FILE|NAME",
        help="compare with this program of the same vocabulary, say the float32 one",
    )
    parser.add_argument(
        "--window",
        "--context",
        dest="window",
        type=int,
        default=1024,
        metavar="N",
        help="tokens a window (default: 1024)",
    )
    parser.add_argument(
        "--windows", type=int, default=20, metavar="N", help="at most this many (default: 20)"
    )
    parser.add_argument(
        "--second-half",
        action="store_true",
        help="score only the second half of each window, whose tokens have a longer past",
    )
    parser.add_argument("--threads", type=int, default=0, help="default: the physical cores")
    parser.add_argument("--backend", choices=("native", "torch"), default="native")
    add_html_argument(
        parser, "quality by size, error by layer, and each window's figure, of several programs"
    )
    parser.add_argument(
        "--beside",
        metavar="FILE|NAME",
        nargs="+",
        default=[],
        help="with --html: more programs for the page, evaluated on the same text",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from edge_llm.catalogue import find_program
    from edge_llm.program.file import Program
    from edge_llm.runner.evaluation.evaluation import evaluate, open_reader

    try:
        text = Path(arguments.text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {arguments.text} as UTF-8 text: {error}") from error
    if arguments.html:
        check_page(arguments.html, "eval")
    elif arguments.beside:
        raise RequestError("--beside is for the page of --html, which was not asked for")
    options = {"threads": arguments.threads, "backend": arguments.backend}
    progress = Progress()
    pages: list[Evaluated] = []
    with ExitStack() as stack:
        stack.callback(progress.close)
        program = stack.enter_context(Program.open(examined_program(arguments), draft=False))
        progress("load", 0, 1)
        ids, reference, other = _encode(program, text), None, None
        if arguments.reference is not None:
            other = stack.enter_context(
                Program.open(find_program(arguments.reference), draft=False)
            )
            _check_same_tokens(program, other, ids, text)
            reference = stack.enter_context(open_reader(other, arguments.window, **options))
        beside = [
            stack.enter_context(Program.open(find_program(name), draft=False))
            for name in arguments.beside
        ]
        for another in beside:
            _check_same_tokens(another, program, ids, text)
        found: list[Quality] = []
        for number, each in enumerate((program, *beside), 1):
            stage = f"eval {number} of {1 + len(beside)}" if beside else "eval"
            with open_reader(each, arguments.window, **options) as reader:
                found.append(
                    evaluate(
                        reader,
                        ids,
                        window=arguments.window,
                        windows=arguments.windows,
                        second_half=arguments.second_half,
                        reference=reference,
                        progress=partial(progress, stage),
                    )
                )
            if arguments.html:
                from edge_llm.cli.eval_page import evaluated

                pages.append(evaluated(each, found[-1], ids, other, threads=arguments.threads))
    quality = found[0]
    if arguments.html:
        from edge_llm.cli.eval_page import write_eval_page

        write_eval_page(arguments, pages, None if other is None else other.path.name)
    if arguments.json:
        print_json(_document(quality))
        return 0
    say(f"{quality.tokens} tokens scored in {quality.windows} windows")
    if quality.divergence is None:
        print(f"perplexity {_number(quality.perplexity)}")
    else:
        print(_describe(quality, quality.divergence))
    return 0


def _encode(program: Program, text: str) -> list[int]:
    from edge_llm.tokenizers.tokenizer import tokenizer_of

    return tokenizer_of(program).encode(text, add_bos=False)


def _check_same_tokens(program: Program, other: Program, ids: list[int], text: str) -> None:
    """Raise RequestError if the two programs do not read the text as the same tokens."""
    ours, theirs = program.plan.vocab, other.plan.vocab
    if ours != theirs:
        raise RequestError(
            f"the reference {other.path.name} has a vocabulary of {theirs} tokens, "
            f"expected the {ours} of {program.path.name}"
        )
    if _encode(other, text) != ids:
        raise RequestError(
            f"the reference {other.path.name} has another tokenizer than {program.path.name}: "
            "it encodes the text to other ids"
        )


def _document(quality: Quality) -> dict[str, Any]:
    """Return the figures as JSON values; the perplexity is a plain number, its error beside."""
    document: dict[str, Any] = {
        "perplexity": quality.perplexity.value,
        "perplexity_error": quality.perplexity.error,
        "tokens": quality.tokens,
        "windows": quality.windows,
    }
    if quality.divergence is not None:
        document["reference"] = asdict(quality.divergence)
    return document


def _describe(quality: Quality, found: Divergence) -> str:
    rows: list[tuple[str, object, object]] = [
        ("perplexity", *_cells(quality.perplexity)),
        ("perplexity of the reference", *_cells(found.reference_perplexity)),
        ("perplexity, program / reference", *_cells(found.perplexity_ratio)),
        ("KL divergence, mean (nats)", *_cells(found.mean)),
        ("KL divergence, median", *_cells(found.median)),
        ("KL divergence, 99th percentile", *_cells(found.p99)),
        ("KL divergence, maximum", f"{found.maximum:.4f}", "-"),
        ("same likeliest token", *_cells(found.top1)),
    ]
    return table(("", "VALUE", "STANDARD ERROR"), rows)


def _cells(estimate: Estimate) -> tuple[str, str]:
    error = "-" if estimate.error is None else f"{estimate.error:.4f}"
    return f"{estimate.value:.4f}", error


def _number(estimate: Estimate) -> str:
    error = "" if estimate.error is None else f" (standard error {estimate.error:.4f})"
    return f"{estimate.value:.4f}{error}"
