"""``edge-llm export``: a checkpoint becomes one program file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edge_llm.cli.console import Progress, human_bytes, print_json, say
from edge_llm.cli.programs import require_export_extra


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "export",
        help="make a program file from a checkpoint",
        description="Quantize, trace, lower and pack a checkpoint into one program file, and "
        "check the file against eager PyTorch.",
    )
    parser.add_argument(
        "--model",
        "-m",
        required=True,
        metavar="PATH|NAME",
        help="a Hugging Face directory, a GGUF file, or a catalogue name (edge-llm ls)",
    )
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
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    require_export_extra()
    from edge_llm import catalogue
    from edge_llm.cli.fetch import fetch
    from edge_llm.cli.terminate import terminate_as_interrupt
    from edge_llm.export.pipeline import export
    from edge_llm.export.recipe import load_recipe
    from edge_llm.export.report import summary
    from edge_llm.program.file import Program

    terminate_as_interrupt()  # so that a killed export leaves no temporary file either
    asked = {
        "model": arguments.model,
        "scheme": arguments.quant,
        "group_size": arguments.group_size,
        "context": arguments.context,
    }
    catalogue.locate(arguments.model)  # refused now, or fetched once all else is known to be right
    is_path = Path(arguments.model).expanduser().exists()
    usual = "8da4w" if is_path else catalogue.find(arguments.model).recipe
    recipe = load_recipe(
        arguments.recipe or arguments.quant or usual,
        arguments.overrides,
        **{key: value for key, value in asked.items() if value is not None},
    )
    progress = Progress()
    try:
        fetch(arguments.model, progress)
        path = export(recipe, output=arguments.output, progress=progress)
    finally:
        progress.close()
    with Program.open(path) as program:
        report = program.documents.report
        if arguments.json:
            print_json({"path": str(path), "report": report})
            return 0
        say(summary(report))
        say(f"{path} ({human_bytes(program.file_bytes)})")
    print(path, file=sys.stdout)
    return 0
