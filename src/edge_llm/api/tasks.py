"""Tasks that tell how good a program is: their items, put to it, and answers judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial

from edge_llm.api.likelihood import log_likelihoods
from edge_llm.api.llm import LLM
from edge_llm.errors import ContextLengthError, RequestError
from edge_llm.runner.evaluation.tasks import bfcl, choices, humaneval
from edge_llm.runner.evaluation.tasks.results import Result
from edge_llm.runner.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to be done, and what does it, with the adapter of a name or none."""

    id: str
    answer: Callable[[LLM, str | None], Result]


def run_items(
    llm: LLM,
    items: Sequence[Item],
    keep: Callable[[Result], None],
    *,
    at_once: int = 8,
    adapter: str | None = None,
) -> None:
    """Have each item answered with ``adapter``, ``at_once`` of them together, and give the results
    to ``keep`` as they come. What fails, or is interrupted, ends the others: the program is closed
    then.

    Raises:
        EdgeLLMError: an item could not be judged.
    """
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="task")
    try:
        for future in as_completed([pool.submit(item.answer, llm, adapter) for item in items]):
            keep(future.result())
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        llm.close()  # ends what is being generated, and so the threads
        raise
    finally:
        pool.shutdown()


def code_items(problems: Iterable[humaneval.Problem], *, max_tokens: int, chat: bool) -> list[Item]:
    """Return problems of HumanEval as items, answered greedily with at most ``max_tokens``: asked
    in a ``chat``, or their texts gone on with. The code runs in the sandbox.

    An item raises:
        ConfigError: code cannot be confined here.
        TemplateError: the program has no chat template.
    """
    ask = _chatted_code if chat else _continued_code
    return [Item(each.id, partial(ask, each, max_tokens)) for each in problems]


def call_items(cases: Iterable[bfcl.Case], *, max_tokens: int, required: bool) -> list[Item]:
    """Return cases of the function calling leaderboard as items: chats with tools, answered
    greedily. With ``required`` the answer is held to a call where one is expected.

    An item raises:
        TemplateError: the program has no chat template.
    """
    return [Item(each.id, partial(_called, each, max_tokens, required)) for each in cases]


def choice_items(
    questions: Sequence[choices.Question], indices: Iterable[int], *, examples: int
) -> list[Item]:
    """Return the questions of ``indices`` as items, each behind ``examples`` others of its subject
    (fewer where the context has no room for them).

    An item raises:
        ContextLengthError: the question alone is longer than the context.
    """
    return [
        Item(questions[index].id, partial(_chosen, questions, index, examples)) for index in indices
    ]


def _chatted_code(
    problem: humaneval.Problem, max_tokens: int, llm: LLM, adapter: str | None
) -> Result:
    messages = [{"role": "user", "content": humaneval.instruction(problem)}]
    try:
        answer = llm.chat(messages, _greedy(max_tokens), adapter=adapter).text
    except ContextLengthError as error:
        return Result(problem.id, "HumanEval", False, "", str(error))
    return humaneval.judge(problem, answer, humaneval.code_of(problem, answer))


def _continued_code(
    problem: humaneval.Problem, max_tokens: int, llm: LLM, adapter: str | None
) -> Result:
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, stop=humaneval.STOPS)
    try:
        answer = llm.generate(problem.prompt, params, adapter=adapter).text
    except ContextLengthError as error:
        return Result(problem.id, "HumanEval", False, "", str(error))
    return humaneval.judge(problem, answer, answer)


def _called(
    case: bfcl.Case, max_tokens: int, required: bool, llm: LLM, adapter: str | None
) -> Result:
    try:
        answer = llm.chat(
            case.messages,
            _greedy(max_tokens),
            tools=case.tools,
            tool_choice="required" if required and case.expected else "auto",
            parallel_tool_calls=case.parallel,
            adapter=adapter,
        )
    except RequestError as error:  # too long, or tools that no grammar can be made of
        refused = bfcl.judge(case, ())  # nothing is right of it, where anything was expected
        return replace(refused, correct=False, reason=f"refused: {error}")
    return bfcl.judge(case, answer.tool_calls, answer.text)


def _chosen(
    questions: Sequence[choices.Question],
    index: int,
    examples: int,
    llm: LLM,
    adapter: str | None,
) -> Result:
    question = questions[index]
    shown = choices.examples_for(questions, index, examples)
    encode = llm.tokenizer.encode
    while True:
        prompt = choices.prompt_of(question, shown)
        context = encode(prompt)
        if len(context) < llm.context:
            break
        if not shown:
            raise ContextLengthError(llm.context, len(context), what="question")
        shown = shown[:-1]
    letters = choices.LETTERS[: len(question.choices)]
    continuations = [encode(f"{prompt} {letter}")[len(context) :] for letter in letters]
    found = log_likelihoods(llm, context, continuations, adapter=adapter)
    scores = [score for score, _ in found]
    return choices.judge(question, scores)


def _greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=max_tokens)
