"""``edge-llm eval --task``: code, tool calls, multiple choice."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import Progress, print_json, say, table
from edge_llm.cli.eval_figures import adapter_shown, keep, one_by_one, score_figures, side_by_side
from edge_llm.cli.loading import adapters_of, one_adapter
from edge_llm.cli.programs import examined_program
from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.api.llm import LLM
    from edge_llm.api.tasks import Item
    from edge_llm.runner.evaluation.tasks.results import Result, Score

TASKS = ("humaneval", "bfcl", "mmlu")
MAX_TOKENS, EXAMPLES = 512, 4
_GROUPS = 20  # that are listed


def run_task(arguments: argparse.Namespace) -> int:
    """Put the items of a task to the program, and to those beside it."""
    from edge_llm.catalogue import find_program

    _check(arguments)
    adapter = one_adapter(arguments.adapters)
    progress = Progress()
    try:
        files = _files(arguments, progress)
        paths = [examined_program(arguments), *map(find_program, arguments.compare or ())]
        scores = [
            _evaluated(arguments, path, files, progress, number, len(paths))
            for number, path in enumerate(paths, 1)
        ]
    finally:
        progress.close()
    with_it = "" if adapter is None else f" with {adapter}"
    _print(arguments, [f"{path.name}{with_it}" for path in paths], scores)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    task = arguments.task
    if task == "humaneval" and not arguments.allow_code:
        raise RequestError(
            "--task humaneval runs code that the model has written, and --allow-code was not given",
            hint="It runs in processes that read files and compute, and can neither write files, "
            "start processes nor reach a network.",
        )
    for option, tasks, given in (
        ("--allow-code", ("humaneval",), arguments.allow_code),
        ("--continue-text", ("humaneval",), arguments.continue_text),
        ("--require-calls", ("bfcl",), arguments.require_calls),
        ("--max-tokens", ("humaneval", "bfcl"), arguments.max_tokens is not None),
        ("--examples", ("mmlu",), arguments.examples is not None),
    ):
        if given and task not in tasks:
            raise RequestError(f"{option} is for --task {' and '.join(tasks)}, not for {task}")
    for option, value, least in (
        ("--limit", arguments.limit, 1),
        ("--max-tokens", arguments.max_tokens, 1),
        ("--examples", arguments.examples, 0),
    ):
        if value is not None and value < least:
            raise RequestError(f"{option} is {value}, expected at least {least}")


def _files(arguments: argparse.Namespace, progress: Progress) -> list[Path]:
    """Return the files with the questions: those of ``--data``, or the task's own, fetched."""
    if arguments.data is None:
        from edge_llm.catalogue import fetch_data

        return fetch_data(arguments.task, progress)
    path = Path(arguments.data)
    if path.is_dir() and arguments.task != "mmlu":
        names = {"humaneval": "HumanEval.jsonl*", "bfcl": "BFCL_v*.json"}[arguments.task]
        files = sorted(path.glob(names))
        if arguments.task == "bfcl":
            files = [file for file in files if file.stem.endswith(("_simple_python", "_multiple"))]
            files = [file for file in files if "live" not in file.stem and "para" not in file.stem]
        if not files:
            raise RequestError(f"the folder {path} has no {names}")
        return files
    return [path]


def _evaluated(
    arguments: argparse.Namespace,
    path: Path,
    files: Sequence[Path],
    progress: Progress,
    number: int,
    count: int,
) -> Score:
    import edge_llm
    from edge_llm.api.tasks import run_items
    from edge_llm.runner.evaluation.journal import Journal
    from edge_llm.runner.evaluation.tasks.results import Result, score_of

    progress("load", 0, 1)
    adapter, folders = one_adapter(arguments.adapters), adapters_of(arguments.adapters)
    options = {"threads": arguments.threads, "backend": arguments.backend}
    with edge_llm.load(path, adapters=folders, **options) as llm:
        items, settings = _items(arguments, llm, files)
        if adapter is not None:
            settings["adapter"] = adapter_shown(llm.engine.facts.adapters)
        what = {"task": arguments.task, "data": _digest(files), **settings}
        header = {**what, "program": llm.digest, "version": edge_llm.__version__}
        with Journal(arguments.output, {**header, "backend": arguments.backend}) as journal:
            missing = [item for item in items if item.id not in journal.records]
            stage = f"{arguments.task} {number} of {count}" if count > 1 else arguments.task
            done = len(items) - len(missing)
            if done:
                say(f"{done} of {len(items)} items are in {arguments.output}")
            progress(stage, done, len(items))

            def record(result: Result) -> None:
                journal.add(result.record())
                progress(stage, sum(item.id in journal.records for item in items), len(items))

            run_items(llm, missing, record, adapter=adapter)
            score = score_of([Result.of(journal.records[item.id]) for item in items])
        name = ", ".join(file.name for file in files)
        keep(
            llm.program, {**what, "limit": arguments.limit}, name, score.items, score_figures(score)
        )
    return score


def _items(
    arguments: argparse.Namespace, llm: LLM, files: Sequence[Path]
) -> tuple[list[Item], dict[str, Any]]:
    """Return the items of the task and the settings that results depend on."""
    from edge_llm.api import tasks
    from edge_llm.runner.evaluation.tasks import bfcl, choices, humaneval

    limit, tokens = arguments.limit, arguments.max_tokens or MAX_TOKENS
    if arguments.task == "humaneval":
        problems = [problem for file in files for problem in humaneval.read_problems(file)]
        chat = llm.chat_template is not None and not arguments.continue_text
        some = [problems[index] for index in spread(len(problems), limit)]
        items = tasks.code_items(some, max_tokens=tokens, chat=chat)
        return items, {"max_tokens": tokens, "asked": "in a chat" if chat else "as a text"}
    if arguments.task == "bfcl":
        llm.require_chat_template()
        cases = [case for file in files for case in bfcl.read_cases(file)]
        of_all = [cases[index] for index in spread(len(cases), limit)]
        required = arguments.require_calls
        items = tasks.call_items(of_all, max_tokens=tokens, required=required)
        return items, {"max_tokens": tokens, "calls_required": required}
    questions = [question for file in files for question in choices.read_questions(file)]
    examples = EXAMPLES if arguments.examples is None else arguments.examples
    indices = spread(len(questions), limit)
    return tasks.choice_items(questions, indices, examples=examples), {"examples": examples}


def spread(count: int, limit: int | None) -> list[int]:
    """Return the indices of ``limit`` of ``count`` items, evenly over all of them, so that every
    category has its share."""
    taken = count if limit is None else min(limit, count)
    return [index * count // taken for index in range(taken)]


def _digest(files: Sequence[Path]) -> str:
    """Return the digest of the files, or of those in a folder; with BFCL's accepted answers."""
    whole = hashlib.sha256()
    for file in files:
        inner = sorted(file.iterdir()) if file.is_dir() else [file]
        for each in (*inner, file.parent / "possible_answer" / file.name):
            if each.is_file():
                whole.update(hashlib.sha256(each.read_bytes()).digest())
    return whole.hexdigest()


def _print(arguments: argparse.Namespace, names: list[str], scores: list[Score]) -> None:
    if arguments.json:
        document = _document(scores[0])
        if len(scores) > 1:
            document["programs"] = [
                {"name": name, **_document(score)}
                for name, score in zip(names, scores, strict=True)
            ]
        print_json({"task": arguments.task, **document})
        return
    say(f"{scores[0].items} items")
    if len(scores) > 1:
        print(side_by_side(names, [score_figures(score) for score in scores]))
        return
    [score] = scores
    print(one_by_one(score_figures(score)))
    if 1 < len(score.groups) <= _GROUPS:
        rows = [(name, found, count) for name, (found, count) in sorted(score.groups.items())]
        print("\n" + table(("", "ACCURACY", "ITEMS"), rows))


def _document(score: Score) -> dict[str, Any]:
    document: dict[str, Any] = {
        "items": score.items,
        "accuracy": score.accuracy.value,
        "accuracy_error": score.accuracy.error,
    }
    if score.share is not None:
        document |= {"arguments": score.share.value, "arguments_error": score.share.error}
    document["groups"] = {
        name: {"accuracy": found, "items": count} for name, (found, count) in score.groups.items()
    }
    return document
