"""``edge-llm eval --text``: perplexity, and the distance from a reference."""

from __future__ import annotations

import argparse
import hashlib
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import Progress, print_json, say
from edge_llm.cli.eval_figures import adapter_shown, keep, one_by_one, side_by_side, text_figures
from edge_llm.cli.html import check_page
from edge_llm.cli.loading import adapters_of, one_adapter
from edge_llm.cli.programs import examined_program
from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.cli.eval_page import Evaluated
    from edge_llm.program.file import Program
    from edge_llm.runner.evaluation.quality import Quality

WINDOW, WINDOWS = 1024, 20


def run_text(arguments: argparse.Namespace) -> int:
    """Evaluate the program, and those beside it, on the text."""
    from edge_llm import __version__
    from edge_llm.api.adapters import with_adapters
    from edge_llm.catalogue import find_program
    from edge_llm.program.file import Program
    from edge_llm.runner.evaluation.evaluation import evaluate, open_reader
    from edge_llm.runner.evaluation.journal import Journal

    try:
        content = Path(arguments.text).read_bytes()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {arguments.text} as UTF-8 text: {error}") from error
    if arguments.html:
        check_page(arguments.html, "eval")
    arguments.window = window = WINDOW if arguments.window is None else arguments.window
    windows = WINDOWS if arguments.windows is None else arguments.windows
    adapter, folders = one_adapter(arguments.adapters), adapters_of(arguments.adapters)
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
            reference = stack.enter_context(open_reader(other, window, **options))
        beside = [
            stack.enter_context(Program.open(find_program(name), draft=False))
            for name in arguments.compare or ()
        ]
        for another in beside:
            _check_same_tokens(another, program, ids, text)
        programs = (program, *beside)
        adapted = [with_adapters(each, folders) for each in programs]
        found: list[Quality] = []
        what = {
            "task": "text",
            "data": hashlib.sha256(content).hexdigest(),
            "window": window,
            "second_half": arguments.second_half,
            "reference": None if other is None else other.digest,
            "backend": arguments.backend,
        }
        if adapted[0] is not None:
            what["adapter"] = adapter_shown(adapted[0].digests)
        for number, (each, more) in enumerate(zip(programs, adapted, strict=True), 1):
            stage = f"eval {number} of {len(programs)}" if beside else "eval"
            header = {**what, "program": each.digest, "version": __version__}
            with (
                Journal(arguments.output, header) as journal,
                open_reader(each, window, beside=more, **options) as reader,
            ):
                quality = evaluate(
                    reader,
                    ids,
                    window=window,
                    windows=windows,
                    second_half=arguments.second_half,
                    reference=reference,
                    journal=journal,
                    progress=partial(progress, stage),
                )
            found.append(quality)
            counted = {**what, "windows": quality.windows}
            keep(each, counted, Path(arguments.text).name, quality.windows, text_figures(quality))
            if arguments.html:
                from edge_llm.cli.eval_page import evaluated

                pages.append(evaluated(each, quality, ids, other, threads=arguments.threads))
        names = [each.path.name for each in programs]
    if arguments.html:
        from edge_llm.cli.eval_page import write_eval_page

        write_eval_page(arguments, pages, None if other is None else other.path.name)
    if adapter is not None:
        names = [f"{name} with {adapter}" for name in names]
    _print(arguments, names, found, what.get("adapter"))
    return 0


def _print(
    arguments: argparse.Namespace, names: list[str], found: list[Quality], adapter: str | None
) -> None:
    quality = found[0]
    if arguments.json:
        document = _document(quality)
        if adapter is not None:
            document["adapter"] = adapter
        if len(found) > 1:
            document["programs"] = [
                {"name": name, **_document(each)} for name, each in zip(names, found, strict=True)
            ]
        print_json(document)
        return
    with_it = "" if adapter is None else f", with the adapter {adapter}"
    say(f"{quality.tokens} tokens scored in {quality.windows} windows{with_it}")
    if len(found) > 1:
        print(side_by_side(names, [text_figures(each) for each in found]))
    elif quality.divergence is None:
        value, error = text_figures(quality)["perplexity"]
        print(
            f"perplexity {value:.4f}" + ("" if error is None else f" (standard error {error:.4f})")
        )
    else:
        print(one_by_one(text_figures(quality)))


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
