"""``edge-llm inspect``: what is in a program file."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edge_llm.cli.compare import side_by_side, subject_named
from edge_llm.cli.console import fitted, human_bytes, print_json, table
from edge_llm.cli.eval_figures import kept_of
from edge_llm.cli.programs import add_model_argument, examined_program

if TYPE_CHECKING:
    from edge_llm.program.file import Program
    from edge_llm.program.plan import Plan

# The report is for people; the run time reads none of it, and a file may come from anywhere.
_NO_REPORT = "report: missing, or not in a form that this version knows"


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "inspect",
        help="model, recipe, report, plan and sizes of a program file",
        description="Show what is in a program file.",
    )
    add_model_argument(parser)
    parser.add_argument("--plan", action="store_true", help="list every instruction")
    parser.add_argument("--weights", action="store_true", help="list every weight")
    parser.add_argument(
        "--compare", metavar="FILE|NAME", help="show the report beside that of another program"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from edge_llm.catalogue import evaluations_of
    from edge_llm.export.compare import compare, program_subject
    from edge_llm.program.file import Program
    from edge_llm.program.serialize import plan_to_text

    with Program.open(examined_program(arguments)) as program:
        if arguments.compare is not None:
            comparison = compare(program_subject(program), subject_named(arguments.compare))
            if arguments.json:
                print_json(comparison)
            else:
                print(side_by_side(comparison))
            return 0
        if arguments.json:
            documents = asdict(program.documents)
            print_json(
                {
                    "path": str(program.path),
                    "bytes": program.file_bytes,
                    **documents,
                    "evaluations": evaluations_of(program.digest),
                    "plan": json.loads(plan_to_text(program.plan)),
                }
            )
            return 0
        print(fitted(_overview(program)))
        if kept := kept_of(program):
            print("\n" + kept)
        if arguments.weights:
            print("\n" + _weights(program))
        if arguments.plan:
            print("\n" + _instructions(program))
    return 0


def _overview(program: Program) -> str:
    from edge_llm.program.cost import weight_bytes

    model, plan = program.documents.model, program.plan
    generation, tokenizer = program.documents.generation, program.documents.tokenizer
    counts = Counter(instruction.op for instruction in plan.instructions)
    rows: list[tuple[str, object]] = [
        ("file", f"{program.path} ({human_bytes(program.file_bytes)})"),
        ("model", f"{model.name} ({model.family}, {model.parameters / 1e6:.1f} M parameters)"),
        ("shape", f"{model.layers} layers, dim {model.dim}, vocabulary {model.vocab}"),
        ("context", f"{model.context} tokens (checkpoint: {model.trained_context})"),
        ("recipe", _recipe(program.documents.recipe)),
        ("activations", activations_of(plan)),
        ("KV cache", _kv_cache(plan, model.kv_dtype)),
        ("states", _states(plan)),
        ("read per token", human_bytes(weight_bytes(plan))),
        ("stop ids", ", ".join(map(str, generation.stop_ids))),
        ("tokenizer", f"{tokenizer.size} tokens, add_bos {tokenizer.add_bos}"),
        ("chat template", "yes" if program.documents.chat_template else "no"),
        ("methods", ", ".join(plan.methods)),
        ("operators", ", ".join(f"{count} {op}" for op, count in counts.most_common())),
    ]
    if (facts := program.documents.embedding) is not None:
        end = "" if facts.end_id is None else f", token {facts.end_id} behind every text"
        rows.append(("vectors", f"{facts.pooling}{end}"))
    if (judge := program.documents.rerank) is not None:
        rows.append(("reranks", f"by token {judge.yes_id} against {judge.no_id}"))
    return "\n".join(f"{name:<16}{value}" for name, value in rows) + "\n" + _report(program)


def activations_of(plan: Plan) -> str:
    """Return how what matrices are multiplied with is rounded, in words."""
    from edge_llm.program.formats import RUN

    multiplied = {
        index
        for method in plan.methods.values()
        for instruction in method.instructions
        if instruction.op in ("linear", "experts")
        for index in instruction.weights
        if index >= 0
    }
    weights = [plan.weights[index] for index in multiplied]
    counts = Counter(weight.activations for weight in weights if not weight.format.is_float)
    words = {"token": "int8 per token", "group": f"int8 per token and group of {RUN}"}
    if len(counts) < 2:
        return next((words[way] for way in counts), "float32")
    listed = [f"{words[way]} ({count} matrices)" for way, count in counts.most_common()]
    return ", ".join(listed)


def _kv_cache(plan: Plan, kv_dtype: str) -> str:
    """Return the bytes of a token, without a draft method and with one."""
    from edge_llm.program.cost import token_bytes

    text = f"{human_bytes(token_bytes(plan.without_draft, kv_dtype))} a token"
    if plan.draft is None:
        return text
    return f"{text}, {human_bytes(token_bytes(plan, kv_dtype))} where drafts are made"


def _states(plan: Plan) -> str:
    """Return how many states there are of each group, and how far they look back."""
    return ", ".join(
        f"{len(group.states)} {group.kind}" + (f" of {group.window} tokens" if group.window else "")
        for group in plan.groups
    )


def _recipe(recipe: dict[str, Any]) -> str:
    """Return what was asked for: the usual, which is nothing or off, is left out. So is whether to
    compare with eager PyTorch: the file does not know whether that was done."""
    said = {
        key: value
        for key, value in recipe.items()
        if value not in (None, {}, [], False) and key != "verify"
    }
    return ", ".join(f"{key.replace('_', ' ')} {_in_words(value)}" for key, value in said.items())


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        inner = (f"{str(key).replace('_', ' ')} {_in_words(each)}" for key, each in value.items())
        return f"({', '.join(inner)})"
    if isinstance(value, list):
        return " and ".join(map(_in_words, value))
    return "on" if value is True else str(value)


def _report(program: Program) -> str:
    from edge_llm.export.report import summary

    try:
        return summary(program.documents.report)
    except (AttributeError, KeyError, TypeError, ValueError):
        return _NO_REPORT


def _weights(program: Program) -> str:
    """Return the report's rows, one a parameter: a merged tensor holds several."""
    head = ("WEIGHT", "SHAPE", "FORMAT", "BITS", "BYTES", "SOURCE", "OUTCOME", "SQNR dB", "TENSOR")
    keys = ("name", "shape", "format", "bits", "bytes", "source", "outcome", "sqnr_db", "tensor")
    try:
        rows = [[row[key] for key in keys] for row in program.documents.report["weights"]]
    except (KeyError, TypeError):
        return _NO_REPORT
    return table(head, rows, optional=("TENSOR", "SHAPE", "SOURCE", "BYTES", "OUTCOME"))


def _instructions(program: Program) -> str:
    plan = program.plan
    rows = []
    for index, instruction in enumerate(plan.instructions):
        outputs = ", ".join(
            f"%{number}[{plan.values[number].rows}, {plan.values[number].width}]"
            for number in instruction.outputs
        )
        operands = [f"%{number}" for number in instruction.inputs]
        operands += [plan.weights[number].name for number in instruction.weights if number >= 0]
        if instruction.state >= 0:
            operands.append(plan.states[instruction.state].name)
        operands += [f"{key}={value}" for key, value in instruction.attributes.items()]
        rows.append((index, f"{outputs} = {instruction.op}({', '.join(operands)})"))
    return table(("#", "INSTRUCTION"), rows)
