"""The run-time half of a backend: what the engine hands to the math, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import GenerationError
from edge_llm.runner.sampling import SamplingParams

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

_NO_IDS = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class RowSampler:
    """One wanted row's sampler. ``history`` is prompt then output ids ([n] int32), its first
    ``prompt_length`` the prompt; ``seed`` and ``counter`` fix the random number; ``allowed`` is a
    bit mask over the vocabulary ([ceil(vocab / 32)] uint32) or None, and so is ``breakers``: the
    ids across which DRY sees no repetition. With a ``target`` nothing is
    sampled: the row's result is that id, with its log-probability."""

    params: SamplingParams
    seed: int = 0
    counter: int = 0
    history: Int32 = field(default_factory=lambda: _NO_IDS)
    prompt_length: int = 0
    allowed: NDArray[np.uint32] | None = None
    target: int = -1
    breakers: NDArray[np.uint32] | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """The next ``tokens`` of one sequence in a step, from position ``first``. The last tokens have
    a row each in ``samplers``; of the last ``hidden`` the hidden states are wanted; ``sequence`` is
    the sequence's row of the block tables, and ``adapter`` the number of its adapter; -1: none."""

    tokens: Sequence[int] | Int32
    samplers: Sequence[RowSampler | None] = ()
    first: int = 0
    sequence: int = 0
    hidden: int = 0
    adapter: int = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """One step. Tokens of one sequence are contiguous, positions ascend; ``sequences`` indexes the
    rows of each of ``block_tables``, one a group of the plan's states ([S, n] int32, all of one
    shape; -1 where there is no block: unused, or behind the group's window); ``rows`` ([R]) indexes
    ``tokens`` ([T]); ``samplers`` has R entries, None where only logits are wanted. ``hidden_rows``
    ([H]) are the tokens whose hidden states are wanted, apart from ``rows``. A ``draft`` is
    computed by the program's draft method alone: one token of a sequence, and the logits after it
    as that method predicts them. ``workers`` are the threads that compute it, 0: all; ``patient``
    ones that wait sleep at once, which takes less power; neither changes a bit. ``adapters`` ([S])
    are the numbers of the sequences' adapters, -1 for none; empty: no sequence has one."""

    tokens: Int32
    positions: Int32
    sequences: Int32
    rows: Int32
    block_tables: tuple[Int32, ...]
    samplers: Sequence[RowSampler | None]
    want_logits: bool = False
    hidden_rows: Int32 = field(default_factory=lambda: _NO_IDS)
    draft: bool = False
    workers: int = 0
    patient: bool = False
    adapters: Int32 = field(default_factory=lambda: _NO_IDS)

    @classmethod
    def of(
        cls,
        *segments: Segment,
        block_tables: tuple[Int32, ...],
        want_logits: bool = False,
        draft: bool = False,
        workers: int = 0,
        patient: bool = False,
    ) -> Batch:
        """Put segments one after another; ``block_tables`` may have rows of other sequences too."""
        owners: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        hidden: list[int] = []
        adapters = [segment.adapter for segment in segments]
        for index, segment in enumerate(segments):
            count = len(segment.tokens)
            owners += [index] * count
            positions += range(segment.first, segment.first + count)
            rows += range(len(owners) - len(segment.samplers), len(owners))
            hidden += range(len(owners) - segment.hidden, len(owners))
        return cls(
            tokens=np.concatenate([np.asarray(segment.tokens, np.int32) for segment in segments]),
            positions=np.array(positions, np.int32),
            sequences=np.array(owners, np.int32),
            rows=np.array(rows, np.int32),
            block_tables=tuple(table[[s.sequence for s in segments]] for table in block_tables),
            samplers=[sampler for segment in segments for sampler in segment.samplers],
            want_logits=want_logits,
            hidden_rows=np.array(hidden, np.int32),
            draft=draft,
            workers=workers,
            patient=patient,
            adapters=np.array(adapters if max(adapters) >= 0 else (), np.int32),
        )

    @property
    def sequence_count(self) -> int:
        """S: the rows of the block tables; where no state has any, what the tokens name."""
        if self.block_tables:
            return len(self.block_tables[0])
        return int(self.sequences.max(initial=-1)) + 1


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural log-probabilities from the raw logits: of the sampled id, and of the likeliest."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Took(NamedTuple):
    """Seconds of a step, without the wait for its turn: all of them, and those in which the thread
    that ran it had a core."""

    seconds: float
    computed: float


@dataclass(frozen=True, slots=True)
class StepResult:
    """``ids`` [R]: the sampled ids, -1 where none was. ``errors`` [R]: None, or why that row could
    not be sampled, as an error where it has a cause of its own. ``logits`` [R, vocab] float32 if
    the batch wanted them, ``hidden`` [H, width] float32 likewise. ``took``: None where the number
    of workers is not the batch's to choose."""

    ids: Int32
    logprobs: Sequence[TokenLogprobs | None]
    errors: Sequence[str | GenerationError | None]
    logits: Float32 | None
    hidden: Float32 | None = None
    took: Took | None = None


@dataclass(frozen=True, slots=True)
class StateGroup:
    """A group of a plan's states in a backend: ``window`` (0: none) in positions, and the bytes of
    one block of all its states."""

    window: int
    block_bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The reservations of an executor at load: T, R and sequences of a step, blocks of each group
    of the plan's states, the type of the KV cache (a key of ops.KV_DTYPES), positions of a sequence
    (0: the program's), threads (0: physical cores), whether every value of a step can be read
    back, and whether the pages of chosen experts are asked for before they are read, which pays
    where memory does not hold the weights."""

    max_tokens: int
    max_rows: int
    max_sequences: int
    blocks: tuple[int, ...]
    kv_dtype: str
    context: int = 0
    threads: int = 0
    trace: bool = False
    read_ahead: bool = False


class Executor(Protocol):
    """Runs steps of one program. Not thread-safe: one caller at a time."""

    @property
    def limits(self) -> Limits: ...

    def step(self, batch: Batch) -> StepResult:
        """Run one step.

        Raises:
            NativeError: the core refused the batch or failed.
        """

    def copy_block(self, group: int, source: int, target: int) -> None:
        """Copy a whole block of a group of states."""

    def block_bytes(self, group: int) -> int:
        """Return the size of a block of a group of states."""

    def read_block(self, group: int, block: int) -> bytes:
        """Return what a block holds, as this program alone understands it."""

    def write_block(self, group: int, block: int, data: bytes) -> None:
        """Let a block hold what `read_block` has returned, of this program in any process.

        Raises:
            NativeError: it has another size.
        """

    def read_value(self, value: int) -> Float32:
        """Return value number ``value`` of the last step, [rows, width]; needs ``limits.trace``."""

    def close(self) -> None:
        """Free blocks and threads; more than once is fine. The executor is unusable afterwards."""
