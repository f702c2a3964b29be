"""HumanEval (Chen et al., "Evaluating large language models trained on code", 2021): functions to
be written from their signature and docstring, right if their tests pass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_llm.errors import RequestError
from edge_llm.runner.evaluation.tasks.lines import field, objects_of
from edge_llm.runner.evaluation.tasks.results import Result, check_ids
from edge_llm.runner.evaluation.tasks.sandbox import CodeLimits, run_code

# Where a model that goes on with a text has left the function.
STOPS = ("\nclass ", "\ndef ", "\n#", "\n@", "\nif ", "\nprint", "\n```")

_INSTRUCTION = (
    "Complete this Python function. Answer with one code block that has the whole function, with "
    "its imports, and nothing else.\n\n```python\n{prompt}\n```"
)
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Problem:
    """A function to write: the text before its body, its name, and a program that defines
    ``check(candidate)``."""

    id: str
    prompt: str
    entry_point: str
    test: str


def read_problems(path: Path) -> list[Problem]:
    """Return the problems of ``HumanEval.jsonl``, plain or packed (``.gz``).

    Raises:
        RequestError: the file cannot be read, or is not of this form.
    """
    problems = []
    for document in objects_of(path):
        texts = [
            str(field(document, name, str, path))
            for name in ("task_id", "prompt", "entry_point", "test")
        ]
        if not texts[2].isidentifier():
            raise RequestError(f"entry_point {texts[2][:50]!r} in {path} is no name")
        problems.append(Problem(*texts))
    if not problems:
        raise RequestError(f"{path} has no problems")
    check_ids(problem.id for problem in problems)
    return problems


def instruction(problem: Problem) -> str:
    """Return what a model that chats is asked."""
    return _INSTRUCTION.format(prompt=problem.prompt.strip())


def code_of(problem: Problem, answer: str) -> str:
    """Return the code of an answer to `instruction`: the first code block that defines the
    function, else the first block, else the whole answer."""
    blocks = _FENCE.findall(answer)
    defining = [block for block in blocks if _defines(problem, block)]
    return str((defining or blocks or [answer])[0])


def program_of(problem: Problem, code: str) -> str:
    """Return the program that runs the tests on ``code``: the function, which then gets the imports
    and helpers that the prompt has before it; or what follows the prompt."""
    if _defines(problem, code):
        preamble = problem.prompt[: problem.prompt.rfind(f"def {problem.entry_point}")]
        solution = f"{preamble}\n{code}"
    else:
        solution = problem.prompt + code
    return f"{solution}\n\n{problem.test}\n\ncheck({problem.entry_point})\n"


def judge(problem: Problem, answer: str, code: str, limits: CodeLimits | None = None) -> Result:
    """Return whether ``code``, taken from an ``answer``, passes the tests, run in the sandbox.

    Raises:
        ConfigError: code cannot be confined here.
    """
    reason = run_code(program_of(problem, code), limits)
    return Result(problem.id, "HumanEval", reason is None, answer, reason or "")


def _defines(problem: Problem, code: str) -> bool:
    return re.search(rf"^def {problem.entry_point}\b", code, re.MULTILINE) is not None
