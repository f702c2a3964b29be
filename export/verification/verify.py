"""Stage verify: the unfinished program against eager PyTorch, teacher-forced, and golden outputs.

Fixed prompts are continued greedily by the program itself; both sides then compute the logits of
every position of the same texts. The program is compared with two eager models: one with the same
quantized numbers (is the export right?), and the unquantized checkpoint (what does the recipe
cost?).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_llm.errors import GenerationError, QualityGateError
from edge_llm.export.recipes.recipe import Gate
from edge_llm.export.verification.metrics import Comparison, compare_logits
from edge_llm.export.verification.streamed import streamed_model
from edge_llm.export.weights.parameters import Parameters
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.ops import CACHE_DTYPES
from edge_llm.program.file import Program
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.plan import Plan
from edge_llm.runner.backends import registry
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
class Verification:
    """``golden`` maps the file's golden tensors to their values. The program is compared with eager
    PyTorch of the ``same_numbers`` and with the ``unquantized`` checkpoint, and so is that eager
    model (``eager_unquantized``): int8 activations turn the smallest difference in the order of
    additions into another rounding somewhere, and layers amplify it, so that two correct
    implementations differ visibly at a position. What they lose to the checkpoint must agree."""

    golden: Mapping[str, NDArray[Any]]
    same_numbers: Comparison
    unquantized: Comparison
    eager_unquantized: Comparison

    def to_json(self) -> dict[str, Any]:
        """The comparisons as JSON values."""
        return {
            "same_numbers": asdict(self.same_numbers),
            "unquantized": asdict(self.unquantized),
            "eager_unquantized": asdict(self.eager_unquantized),
        }


def verified_positions(context: int) -> int:
    """How many logits rows `verify` compares."""
    return len(PROMPTS) * _positions(context)


def golden_shapes(context: int, vocab: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of the golden tensors, known before anything has run."""
    count, length = len(PROMPTS), _prompt_limit(context)
    top = min(TOP, vocab)
    return {
        "golden.tokens": ("I32", (count, length)),
        "golden.next": ("I32", (count, max(_positions(context) - 1, 1))),
        "golden.top_ids": ("I32", (count, top)),
        "golden.top_logits": ("F32", (count, top)),
    }


def verify(
    path: Path,
    config: DecoderConfig,
    parameters: Parameters,
    formats: Mapping[str, WeightFormat],
    *,
    kv_dtype: str,
    backend: str,
) -> Verification:
    """Runs the program at ``path`` and the two eager models.

    ``parameters``, ``formats`` and ``kv_dtype`` are those it was exported with.

    Raises:
        NativeError, CapacityError: the run-time half of the backend is missing or failed.
        GenerationError: the program computes logits that are not finite.
    """
    with Program.open(path) as program:
        plan = program.plan
        tokenizer = tokenizer_of(program)
        prompts = [tokenizer.encode(text)[: _prompt_limit(plan.context)] or [0] for text in PROMPTS]
        with _runner(program, backend) as runner:
            texts = runner.continue_greedily(prompts, _positions(plan.context))
            logits = [runner.logits(index, text) for index, text in enumerate(texts)]
        golden = _golden(prompts, texts, logits, plan)

    def eager(weights: Mapping[str, WeightFormat], kv: str) -> Float32:
        model = streamed_model(
            config,
            parameters,
            weights,
            context=plan.context,
            slots=len(texts),
            tokens=_positions(plan.context),
            kv_dtype=CACHE_DTYPES[kv],
        )
        return eager_logits(model, texts)

    ours = np.concatenate(logits)
    quantized = eager(formats, kv_dtype)
    unquantized = eager(dict.fromkeys(formats, WEIGHT_FORMATS["f32"]), "f32")
    return Verification(
        golden,
        same_numbers=compare_logits(ours, quantized),
        unquantized=compare_logits(ours, unquantized),
        eager_unquantized=compare_logits(quantized, unquantized),
    )


def check_gate(verification: Verification, gate: Gate) -> None:
    """Compares with the recipe's limits.

    Raises:
        QualityGateError: which limits were broken, and by how much.
    """
    same, quality = verification.same_numbers, verification.unquantized
    broken = []
    if not same.kl <= gate.max_kl:  # also true for NaN
        broken.append(f"KL to eager PyTorch is {same.kl:.4g}, at most {gate.max_kl:g} is allowed")
    if not same.top1_near >= gate.min_top1:
        broken.append(
            f"top-1 agreement is {same.top1_near:.2%}, at least {gate.min_top1:.2%} is asked"
        )
    excess = quality.kl - verification.eager_unquantized.kl
    if not excess <= gate.max_excess_kl:
        broken.append(
            f"KL to the unquantized checkpoint exceeds that of eager PyTorch by {excess:.4g}, "
            f"at most {gate.max_excess_kl:g} is allowed"
        )
    if not quality.kl <= gate.max_quality_kl:
        broken.append(
            f"KL to the unquantized checkpoint is {quality.kl:.4g}, "
            f"at most {gate.max_quality_kl:g} is allowed"
        )
    if broken:
        raise QualityGateError(
            "the program is not good enough: " + "; ".join(broken),
            hint="choose a finer scheme, or accept it with --set gate=off",
        )


def eager_logits(model: torch.nn.Module, texts: Sequence[Sequence[int]]) -> Float32:
    """Logits of every position of ``texts``, one after the other, [n, vocab] float32. The texts
    are one flat batch, so that every weight is read once."""
    tokens = torch.tensor([token for text in texts for token in text])
    positions = torch.cat([torch.arange(len(text)) for text in texts])
    sequences = torch.cat([torch.full((len(text),), i) for i, text in enumerate(texts)])
    with torch.no_grad():
        logits: torch.Tensor = model(tokens, positions, sequences, torch.arange(len(tokens)))
    return logits.float().numpy()


# --- the program's side --------------------------------------------------------------------------


def _positions(context: int) -> int:
    return min(POSITIONS, context)


def _prompt_limit(context: int) -> int:
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

    def logits(self, index: int, text: Sequence[int]) -> Float32:
        """Logits of every position of ``text``, [n, vocab]."""
        logits = self._step([Segment(text, [None] * len(text), sequence=index)]).logits
        assert logits is not None  # the batch wants them
        return logits

    def _step(self, pieces: Sequence[Segment]) -> StepResult:
        wanted = any(sampler is None for piece in pieces for sampler in piece.samplers)
        return self._executor.step(
            Batch.of(*pieces, block_tables=self._block_tables, want_logits=wanted)
        )


@contextmanager
def _runner(program: Program, backend: str) -> Iterator[_Runner]:
    plan = program.plan
    texts, length = len(PROMPTS), _positions(plan.context)
    blocks = -(-length // registry.backend(backend).block_size())
    executor = registry.open_executor(
        program,
        Limits(
            max_tokens=texts * length,
            max_rows=max(texts, length),
            max_sequences=texts,
            blocks=(texts * blocks,) * len(plan.groups),
            kv_dtype=program.documents.model.kv_dtype,
        ),
        name=backend,
    )
    try:
        yield _Runner(executor, registry.block_tables(executor.limits.blocks, texts))
    finally:
        executor.close()


def _golden(
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    logits: Sequence[Float32],
    plan: Plan,
) -> dict[str, NDArray[Any]]:
    shapes = {name: shape for name, (_, shape) in golden_shapes(plan.context, plan.vocab).items()}
    tokens = np.full(shapes["golden.tokens"], _PAD, np.int32)
    following = np.full(shapes["golden.next"], _PAD, np.int32)
    top_ids = np.empty(shapes["golden.top_ids"], np.int32)
    top_logits = np.empty(shapes["golden.top_logits"], np.float32)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        tokens[row, : len(prompt)] = prompt
        following[row, : len(text) - len(prompt)] = text[len(prompt) :]
        last = logits[row][len(prompt) - 1]
        # stable, so that the lower id comes first among equals, as in greedy sampling
        top_ids[row] = np.argsort(-last, kind="stable")[: top_ids.shape[1]]
        top_logits[row] = last[top_ids[row]]
    return {
        "golden.tokens": tokens,
        "golden.next": following,
        "golden.top_ids": top_ids,
        "golden.top_logits": top_logits,
    }
