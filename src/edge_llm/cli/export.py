"""``edge-llm export``: a checkpoint becomes one program file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.compare import side_by_side, subject_named
from edge_llm.cli.console import Progress, fitted, human_bytes, print_json, say
from edge_llm.cli.programs import model_of
from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.export.compare import Subject
    from edge_llm.export.recipes.recipe import Recipe


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "export",
        help="make a program file from a checkpoint",
        description="Quantize, trace, lower and pack a checkpoint into one program file. Where "
        "PyTorch is installed (the extra `export`), the file is compared with eager PyTorch, and "
        "not written if it is too far from it.",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="MODEL",
        help="a Hugging Face directory, a GGUF file, a catalogue name (edge-llm ls --all), or "
        "hf:ORG/NAME[/FILE.gguf][@REVISION]",
    )
    parser.add_argument("--model", "-m", metavar="MODEL", help="the same by name")
    parser.add_argument(
        "--quant",
        "-q",
        choices=("8da4w", "8da8w", "fp16", "bf16", "fp32"),
        help="scheme of the weights (default: the recipe's, 8da4w)",
    )
    parser.add_argument(
        "--group-size", type=int, choices=(32, 64, 128), help="of 8da4w (default: 32)"
    )
    parser.add_argument(
        "--recipe",
        metavar="FILE|NAME",
        help="a recipe in YAML, or the name of one; options override it",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override one field of the recipe; may be repeated",
    )
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens (default: the model's, at most 8192)"
    )
    parser.add_argument("--output", "-o", metavar="FILE", help="default: in the store")
    parser.add_argument(
        "--kv-dtype",
        choices=("f32", "f16", "i8"),
        help="of keys and values (default: f16, f32 under fp32)",
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="PATH[=WEIGHT]",
        dest="adapters",
        help="merge a LoRA adapter in PEFT's folder layout; may be repeated",
    )
    parser.add_argument(
        "--calibrate",
        metavar="FILE",
        nargs="?",
        const="builtin",
        dest="calibration",
        help="the model reads a text first (some pages are enough, or conversations as JSON lines "
        'in a FILE.jsonl, {"messages": [...]} each, read in the chat template; builtin, or no '
        "FILE: prose, conversations and code that come with edge-llm), so that rounding to 8da4w "
        "spares what counts: about half the loss at the same size and speed, in some minutes; "
        "the same command goes on where it was ended",
    )
    parser.add_argument(
        "--bits",
        type=float,
        metavar="N",
        help="with --calibrate: at most N bits per weight of the file, with more of them in the "
        "matrices that lose most; the mix of formats is shown as a recipe, to be used again",
    )
    parser.add_argument(
        "--chat-template",
        metavar="FILE",
        help="a Jinja file, for a model that has no chat template or to replace it",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print plan, sizes and memory; read no weights (a folder with a config.json is "
        "enough), write nothing",
    )
    parser.add_argument(
        "--compare",
        metavar="FILE|NAME",
        help="show the report beside that of another program",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--verbose", "-v", action="store_true", help="print the whole report, not its totals"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from edge_llm import catalogue
    from edge_llm.cli.fetch import fetch
    from edge_llm.cli.terminate import terminate_as_interrupt
    from edge_llm.export.compare import compare
    from edge_llm.export.pipeline import make_program
    from edge_llm.export.recipes.file import load_recipe

    model_name = model_of(arguments)
    if model_name is None:
        text = arguments.calibration
        raise RequestError(
            "no model is named, expected `edge-llm export MODEL`",
            hint=None
            if text in (None, "builtin")
            else f"{text} was taken as the text of --calibrate: name the model before it",
        )
    terminate_as_interrupt()  # so that a killed export leaves no temporary file either
    asked = {
        "model": model_name,
        "scheme": arguments.quant,
        "group_size": arguments.group_size,
        "context": arguments.context,
        "kv_dtype": arguments.kv_dtype,
        "calibration": arguments.calibration,
        "bits": arguments.bits,
        "chat_template": arguments.chat_template,
        "adapters": [_adapter(text) for text in arguments.adapters] or None,
    }
    # A wrong name is refused now; a right one is fetched once all else is known to be right.
    model = catalogue.identify(model_name)
    usual = model.recipe if isinstance(model, catalogue.Entry) else "8da4w"
    recipe = load_recipe(
        arguments.recipe or arguments.quant or usual,
        arguments.overrides,
        **{key: value for key, value in asked.items() if value is not None},
    )
    # Opened now: the export may take the place of that very file.
    other = None if arguments.compare is None else subject_named(arguments.compare)
    if arguments.dry_run:
        return _dry_run(recipe, other, as_json=arguments.json)
    progress = Progress()

    def tell(text: str) -> None:
        progress.close()  # it comes again by itself
        say(text)

    try:
        fetch(model_name, progress)
        progress("read", 0, 1)
        made = make_program(recipe, output=arguments.output, progress=progress, tell=tell)
    finally:
        progress.close()
    program = subject_named(str(made.path))
    comparison = None if other is None else compare(program, other)
    if arguments.json:
        print_json({**made.to_json(), "compare": comparison})
        return 0
    say(fitted(made.describe() if arguments.verbose else made.verdict()))
    if comparison is not None:
        say(side_by_side(comparison))
    if made.mix is not None:
        say(f"the mix that was found, a recipe (--recipe FILE):\n{made.mix.rstrip()}")
    say(
        f"{made.path.name}: {human_bytes(program.file_bytes)}, "
        f"{made.report['bits_per_weight']:.2f} bits per weight, "
        f"made in {sum(made.seconds.values()):.0f} s"
    )
    print(made.path, file=sys.stdout)
    return 0


def _adapter(text: str) -> dict[str, Any]:
    """``PATH`` or ``PATH=WEIGHT``; the name of a folder may itself hold an equals sign."""
    if Path(text).expanduser().exists():
        return {"path": text}
    path, _, weight = text.rpartition("=")
    try:
        return {"path": path, "weight": float(weight)} if path else {"path": text}
    except ValueError:
        return {"path": text}


def _dry_run(recipe: Recipe, other: Subject | None, *, as_json: bool) -> int:
    from edge_llm.export.compare import compare, planned_subject
    from edge_llm.export.dry_run import describe, dry_run
    from edge_llm.runner.config import RunnerConfig

    usual = RunnerConfig()
    document = dry_run(recipe, tokens=usual.step_tokens, rows=usual.max_sequences)
    comparison = None if other is None else compare(planned_subject(document), other)
    if as_json:
        print_json(document | {"compare": comparison})
        return 0
    print(fitted(describe(document)))
    if comparison is not None:
        print("\n" + side_by_side(comparison))
    return 0
