"""``edge-llm verify``: is this file whole, and does it compute here what it computed at export?"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any

from edge_llm.cli.console import Progress, say, table
from edge_llm.cli.programs import add_model_argument, examined_program
from edge_llm.errors import ProgramError


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "verify",
        help="check a program file's digests and golden outputs",
        description="Check every digest, then run the golden prompts and compare ids and logits "
        "with those stored at export, bit for bit.",
    )
    add_model_argument(parser)
    parser.add_argument(
        "--trace",
        action="store_true",
        help="also give each instruction of the torch backend the native one's inputs and compare "
        "their outputs (needs the export extra)",
    )
    parser.add_argument("--threads", type=int, default=0, help="default: the physical cores")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from edge_llm.program.file import Program
    from edge_llm.runner.evaluation.golden import check_golden

    with (
        Program.open(examined_program(arguments)) as program,
        closing(Progress()) as progress,
    ):
        progress("digests", 0, 1)
        program.verify_digests()
        say("digests: fine")
        if program.golden is None:
            say("golden outputs: none in this file (exported with verify off)")
        else:
            progress("golden outputs", 0, 1)
            check_golden(program, threads=arguments.threads)
            say(f"golden outputs: {len(program.golden.tokens)} prompts, bit for bit")
        if arguments.trace:
            progress("trace", 0, 1)
            _trace(program, arguments.threads)
    print("ok")
    return 0


def _trace(program: Any, threads: int) -> None:
    from edge_llm.extras import require_extra

    require_extra("export", "--trace")
    from edge_llm.runner.evaluation.trace import trace

    rows = trace(program, threads=threads)
    lines = [
        (row.index, row.op, row.source, f"{row.max_abs_diff:.2e}", f"{row.relative_error:.2e}")
        for row in rows
    ]
    say(table(("#", "OP", "SOURCE", "MAX ABS DIFF", "OF STD"), lines))
    failed = [row for row in rows if row.failed]
    if failed:
        worst = max(failed, key=lambda row: row.relative_error)
        raise ProgramError(
            f"{len(failed)} of {len(rows)} outputs differ from PyTorch by more than rounding; most "
            f"instruction {worst.index} ({worst.op}, {worst.source}): {worst.relative_error:.2e} "
            "of its standard deviation"
        )
    say(f"trace: {len(rows)} outputs agree with PyTorch")
