"""Questions with choices, in the form of MMLU (Hendrycks et al., "Measuring massive multitask
language understanding", 2021): right where the letter of the right choice is the likeliest."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_llm.errors import RequestError
from edge_llm.runner.evaluation.tasks.lines import field, objects_of, text_of
from edge_llm.runner.evaluation.tasks.results import Result, check_ids

LETTERS = "ABCDEFGHIJ"

# One question of the few-shot examples of lm-evaluation-harness, with reasoning before the answer.
_EXAMPLE = re.compile(
    r"(?P<question>.*?)(?P<choices>\(A\).*?)\nA: .*\(([A-J])\)\.?\s*\Z", re.DOTALL
)
_NEXT_CHOICE = re.compile(r"\s*\(([A-J])\)\s*")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its choices, and which of them is right, by its index."""

    id: str
    subject: str
    question: str
    choices: Sequence[str]
    answer: int


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a file, or of all such files in a folder:

    - ``.jsonl``: ``question``, ``choices``, ``answer`` (a letter, or an index from 0) and perhaps
      ``subject``;
    - ``.csv``: MMLU's own, a question, its choices and a letter a row, the subject being the
      file's name without ``_dev``, ``_val`` or ``_test``;
    - ``.json``: the few-shot examples of lm-evaluation-harness, texts by their subjects. Those
      which are not of the usual form there are left out.

    Raises:
        RequestError: none of these, or a file that cannot be read or is not of its form.
    """
    readers = {".jsonl": _of_lines, ".csv": _of_table, ".json": _of_examples}
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = []
    for file in files:
        if (reader := readers.get(file.suffix)) is not None:
            found += reader(file)
        elif file == path:
            raise RequestError(f"{path} is no file of questions, expected .json, .jsonl or .csv")
    if not found:
        raise RequestError(f"{path} has no questions")
    check_ids(question.id for question in found)
    return found


def examples_for(questions: Sequence[Question], index: int, count: int) -> list[Question]:
    """Return the examples that precede a question: the first ``count`` others of its subject."""
    own = questions[index]
    others = (
        other
        for number, other in enumerate(questions)
        if number != index and other.subject == own.subject
    )
    return [other for other, _ in zip(others, range(count), strict=False)]


def prompt_of(question: Question, examples: Sequence[Question]) -> str:
    """Return the text whose next token is the letter, with a blank before it: as MMLU has it."""
    subject = question.subject.replace("_", " ")
    about = f" about {subject}" if subject else ""
    head = f"The following are multiple choice questions (with answers){about}.\n\n"
    shown = [f"{_asked(example)} {LETTERS[example.answer]}\n\n" for example in examples]
    return head + "".join(shown) + _asked(question)


def judge(question: Question, scores: Sequence[float]) -> Result:
    """Return whether the right choice has the highest of the ``scores``, the log-probabilities of
    the letters. Of equal ones the first counts."""
    chosen = max(range(len(scores)), key=lambda index: scores[index])
    right = LETTERS[question.answer]
    shown = ", ".join(f"{LETTERS[index]} {score:.4f}" for index, score in enumerate(scores))
    correct = chosen == question.answer
    reason = "" if correct else f"{LETTERS[chosen]} is likelier than {right}"
    return Result(question.id, question.subject, correct, shown, reason)


def _asked(question: Question) -> str:
    lines = [question.question.strip()]
    lines += [f"{LETTERS[index]}. {text}" for index, text in enumerate(question.choices)]
    return "\n".join([*lines, "Answer:"])


def _of_lines(path: Path) -> list[Question]:
    found = []
    for number, document in enumerate(objects_of(path)):
        choices = field(document, "choices", list, path)
        subject = document.get("subject", path.stem)
        answer = document.get("answer")
        text = field(document, "question", str, path)
        found.append(_checked(path, number, str(subject), text, choices, answer))
    return found


def _of_table(path: Path) -> list[Question]:
    subject = re.sub(r"_(dev|val|test)\Z", "", path.stem)
    found = []
    try:
        rows = [row for row in csv.reader(io.StringIO(text_of(path), newline="")) if row]
    except csv.Error as error:
        raise RequestError(f"{path} is no table: {error}") from error
    for number, row in enumerate(rows):
        if len(row) < 4:
            raise RequestError(f"row {number + 1} of {path} has {len(row)} cells, expected 4")
        found.append(_checked(path, number, subject, row[0], row[1:-1], row[-1].strip()))
    return found


def _of_examples(path: Path) -> list[Question]:
    try:
        document = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or not all(isinstance(v, str) for v in document.values()):
        raise RequestError(f"{path} is no object with a text for each subject")
    found = []
    for subject, text in document.items():
        for number, block in enumerate(re.split(r"\n\n(?=Q: )", text)[1:]):
            match = _EXAMPLE.match(block.removeprefix("Q: "))
            if match is None:
                continue
            _, *parts = _NEXT_CHOICE.split("\n" + match["choices"])
            letters, choices = parts[0::2], [choice.strip() for choice in parts[1::2]]
            if "".join(letters) == LETTERS[: len(choices)] and match[3] in letters:
                question = match["question"]
                found.append(_checked(path, number, subject, question, choices, match[3]))
    return found


def _checked(
    path: Path, number: int, subject: str, question: str, choices: Sequence[Any], answer: Any
) -> Question:
    name = f"{path.stem}/{subject}/{number}" if subject != path.stem else f"{subject}/{number}"
    if not 2 <= len(choices) <= len(LETTERS) or not all(isinstance(c, str) for c in choices):
        raise RequestError(f"{name} of {path} has no 2 to {len(LETTERS)} choices that are texts")
    if isinstance(answer, str) and len(answer) == 1 and answer in LETTERS:
        answer = LETTERS.index(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise RequestError(f"the answer of {name} of {path} is none of its choices")
    return Question(name, subject, question.strip(), list(choices), answer)
