"""The program's answers to fixed prompts: what is compared in the stage verify, and recorded in the
file as its golden record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import GenerationError
from edge_llm.program.file import Program
from edge_llm.runner.backends import registry
from edge_llm.runner.evaluation.drafts import DRAFTED, drafts_after
from edge_llm.runner.executor import Batch, Executor, Limits, RowSampler, Segment, StepResult
from edge_llm.runner.sampling import SamplingParams
from edge_llm.tokenizers.tokenizer import tokenizer_of

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea, there lived",
    "def fibonacci(n):\n    ",
    "To make bread you need flour, water, yeast and salt. First,",
    "Q: What is 12 plus 30?\nA:",
)
POSITIONS = 64  # of each prompt with its continuation
TOP = 16
_GREEDY = SamplingParams(temperature=0.0)
_PAD = -1


@dataclass(frozen=True, slots=True)
class Answers:
    """The ``prompts`` in tokens; ``texts``, each a prompt and what the program said next (nothing,
    if it is bidirectional); and the
    ``logits`` of every position of ``compared``, the beginnings of the texts that are compared with
    other models (no shorter than the prompts), [n, vocab] float32. ``drafts`` are what the draft
    method predicts behind each prompt and the first token after it; None: there is none.
    ``routes`` are the shares that each route of the program gave to experts there, [n of all,
    experts]. ``context`` is the program's."""

    context: int
    prompts: Sequence[Sequence[int]]
    texts: Sequence[Sequence[int]]
    compared: Sequence[Sequence[int]]
    logits: Sequence[Float32]
    routes: Sequence[Float32]
    drafts: Sequence[Sequence[int]] | None = None

    def golden(self) -> Mapping[str, NDArray[Any]]:
        """Return the file's golden tensors by name."""
        shapes = {
            name: shape
            for name, (_, shape) in golden_shapes(
                self.context, self.logits[0].shape[1], drafts=self.drafts is not None
            ).items()
        }
        tokens = np.full(shapes["golden.tokens"], _PAD, np.int32)
        following = np.full(shapes["golden.next"], _PAD, np.int32)
        top_ids = np.empty(shapes["golden.top_ids"], np.int32)
        top_logits = np.empty(shapes["golden.top_logits"], np.float32)
        for row, (prompt, text) in enumerate(zip(self.prompts, self.texts, strict=True)):
            tokens[row, : len(prompt)] = prompt
            following[row, : len(text) - len(prompt)] = text[len(prompt) :]
            last = self.logits[row][len(prompt) - 1]
            # stable, so that the lower id comes first among equals, as in greedy sampling
            top_ids[row] = np.argsort(-last, kind="stable")[: top_ids.shape[1]]
            top_logits[row] = last[top_ids[row]]
        record: dict[str, NDArray[Any]] = {
            "golden.tokens": tokens,
            "golden.next": following,
            "golden.top_ids": top_ids,
            "golden.top_logits": top_logits,
        }
        if self.drafts is not None:
            drafts = np.full(shapes["golden.drafts"], _PAD, np.int32)
            for row, ids in enumerate(self.drafts):
                drafts[row, : len(ids)] = ids
            record["golden.drafts"] = drafts
        return record


def verified_positions(context: int) -> int:
    """Return how many rows of logits the stage verify compares."""
    return len(PROMPTS) * _compared(context)


def golden_shapes(
    context: int, vocab: int, *, drafts: bool = False
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of the golden tensors, known before anything has run; ``drafts``: the program
    has a draft method."""
    count, length = len(PROMPTS), _compared(context)
    top = min(TOP, vocab)
    more = {"golden.drafts": ("I32", (count, DRAFTED))} if drafts else {}
    return {
        "golden.tokens": ("I32", (count, length)),
        "golden.next": ("I32", (count, max(_positions(context) - 1, 1))),
        "golden.top_ids": ("I32", (count, top)),
        "golden.top_logits": ("F32", (count, top)),
        **more,
    }


def answers_of(program: Program, backend: str) -> Answers:
    """Run the program on the prompts.

    Raises:
        NativeError, CapacityError: the run-time half of the backend is missing or failed.
        GenerationError: the program computes logits that are not finite.
    """
    tokenizer, context = tokenizer_of(program), program.plan.context
    prompts = [tokenizer.encode(text)[: _compared(context)] or [0] for text in PROMPTS]
    with _runner(program, backend) as runner:
        texts: Sequence[Sequence[int]] = prompts
        if not program.plan.bidirectional:
            texts = runner.continue_greedily(prompts, _positions(context))
        compared = [text[: _compared(context)] for text in texts]
        logits = runner.logits(compared)
        drafts = None
        if program.plan.draft is not None:
            begun = [text[: len(prompt) + 1] for prompt, text in zip(prompts, texts, strict=True)]
            drafts = runner.drafts(begun)
    routes = _routes_of(program, backend, compared)
    return Answers(context, prompts, texts, compared, logits, routes, drafts)


def golden_of(path: Path, backend: str) -> Mapping[str, NDArray[Any]]:
    """Return the golden tensors of the program at ``path`` by name.

    Raises:
        NativeError, CapacityError: the run-time half of the backend is missing or failed.
        GenerationError: the program computes logits that are not finite.
    """
    with Program.open(path) as program:
        return answers_of(program, backend).golden()


def _routes_of(program: Program, backend: str, texts: Sequence[Sequence[int]]) -> list[Float32]:
    """Return the output of every route of the program at every position of ``texts``, [n, experts]
    each. A trace keeps all values of a step, so a step is one text."""
    routes = [op.outputs[0] for op in program.plan.instructions if op.op == "route"]
    if not routes:
        return []
    with _runner(program, backend, trace=True) as runner:
        values = [runner.values(text, routes) for text in texts]
    return [np.concatenate(parts) for parts in zip(*values, strict=True)]


def _positions(context: int) -> int:
    return min(POSITIONS, context)


def _compared(context: int) -> int:
    """Return how many positions of a text are compared, and the most tokens of a prompt: each costs
    two eager models all their multiplications."""
    return max(_positions(context) // 2, 1)


class _Runner:
    """An executor with one sequence per text."""

    def __init__(self, executor: Executor, block_tables: tuple[Int32, ...]) -> None:
        self._executor = executor
        self._block_tables = block_tables

    def continue_greedily(self, prompts: Sequence[Sequence[int]], length: int) -> list[list[int]]:
        """Each prompt and what the program says next, ``length`` tokens in all."""
        texts = [list(prompt) for prompt in prompts]
        computed = [0] * len(texts)
        while active := [index for index, text in enumerate(texts) if len(text) < length]:
            pieces = []
            for index in active:
                sampler = RowSampler(
                    params=_GREEDY,
                    seed=0,
                    counter=len(texts[index]) - len(prompts[index]),
                    history=np.array(texts[index], np.int32),
                    prompt_length=len(prompts[index]),
                )
                unseen = texts[index][computed[index] :]
                pieces.append(Segment(unseen, [sampler], computed[index], index))
                computed[index] = len(texts[index])
            result = self._step(pieces)
            for index, token, error in zip(active, result.ids, result.errors, strict=True):
                if error is not None:
                    raise GenerationError(f"the program fails on a fixed prompt: {error}")
                texts[index].append(int(token))
        return texts

    def logits(self, texts: Sequence[Sequence[int]]) -> list[Float32]:
        """Logits of every position of each text, [n, vocab]. All are one step, so that each weight
        is read once."""
        logits = self._step(
            [Segment(text, [None] * len(text), sequence=i) for i, text in enumerate(texts)]
        ).logits
        assert logits is not None  # the batch wants them
        return np.split(logits, np.cumsum([len(text) for text in texts])[:-1])

    def drafts(self, texts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the tokens that the draft method predicts behind each text."""
        tables = tuple(table[:1] for table in self._block_tables)
        return drafts_after(self._executor, tables, texts)

    def values(self, text: Sequence[int], numbers: Sequence[int]) -> list[Float32]:
        """Values of the program at every position of a text; the executor keeps a trace."""
        self._step([Segment(text, [None] * len(text))])
        return [self._executor.read_value(number) for number in numbers]

    def _step(self, pieces: Sequence[Segment]) -> StepResult:
        wanted = any(sampler is None for piece in pieces for sampler in piece.samplers)
        return self._executor.step(
            Batch.of(*pieces, block_tables=self._block_tables, want_logits=wanted)
        )


@contextmanager
def _runner(program: Program, backend: str, *, trace: bool = False) -> Iterator[_Runner]:
    plan = program.plan
    texts, length = len(PROMPTS), _positions(plan.context)
    tokens = _compared(plan.context) * (1 if trace else texts)
    blocks = -(-length // registry.backend(backend).block_size())
    executor = registry.open_executor(
        program,
        Limits(
            max_tokens=tokens,
            max_rows=tokens,
            max_sequences=texts,
            blocks=(texts * blocks,) * len(plan.groups),
            kv_dtype=program.documents.model.kv_dtype,
            trace=trace,
        ),
        name=backend,
    )
    try:
        yield _Runner(executor, registry.block_tables(executor.limits.blocks, texts))
    finally:
        executor.close()
