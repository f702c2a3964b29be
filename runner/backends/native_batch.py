"""A step's batch in the form that the native core reads, and what it leaves behind."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from edge_llm import abi
from edge_llm.errors import NativeError
from edge_llm.runner.backends.reference_sampler import NON_FINITE, NONE_ALLOWED
from edge_llm.runner.executor import (
    Batch,
    Float32,
    Int32,
    Limits,
    RowSampler,
    StepResult,
    TokenLogprobs,
)
from edge_llm.runner.sampling import PARAMETERS, SamplingParams

UInt32 = NDArray[np.uint32]

# Fields of edge_sampler that are sampling parameters, by the names of both.
SCALARS = tuple(
    name for name, item in PARAMETERS.items() if item.part == "sampler" and item.kind != "biases"
)
_FAILURES = {1: NON_FINITE, 2: NONE_ALLOWED}  # by edge_sample.status


class StepBuffers:
    """The C batch and the arrays behind its pointers, filled in place for every step."""

    def __init__(
        self, limits: Limits, *, vocab: int, block_size: int, hidden_width: int = 0
    ) -> None:
        """``hidden_width``: of the program's hidden states; 0: it gives none."""
        self._limits = limits
        self._vocab = vocab
        self._hidden_width = hidden_width
        self._stride = -(-limits.context // block_size)
        self._tokens = np.zeros(limits.max_tokens, np.int32)
        self._positions = np.zeros(limits.max_tokens, np.int32)
        self._sequences = np.zeros(limits.max_tokens, np.int32)
        self._adapters = np.zeros(limits.max_sequences, np.int32)
        self._rows = np.zeros(max(limits.max_rows, 1), np.int32)
        self._hidden_rows = np.zeros(limits.max_tokens, np.int32)
        self._tables = np.full(
            (len(limits.blocks), limits.max_sequences * self._stride), -1, np.int32
        )
        self._samplers = (abi.Sampler * max(limits.max_rows, 1))()
        self._samples = (abi.Sample * max(limits.max_rows, 1))()
        # The same records for numpy, to read a whole column at once.
        self._sample_view = np.ctypeslib.as_array(self._samples)
        self._params: list[SamplingParams | None] = [None] * limits.max_rows
        self._borrowed: list[object] = []  # what the samplers' pointers point at
        batch = abi.Batch()
        batch.block_stride = self._stride
        batch.tokens = self._tokens.ctypes.data
        batch.positions = self._positions.ctypes.data
        batch.sequences = self._sequences.ctypes.data
        batch.rows = self._rows.ctypes.data
        batch.hidden_rows = self._hidden_rows.ctypes.data
        batch.block_tables = self._tables.ctypes.data
        batch.samples = ctypes.addressof(self._samples)
        self._batch = batch
        self.address = ctypes.addressof(batch)

    def fill(self, batch: Batch) -> tuple[Float32 | None, Float32 | None]:
        """Copy ``batch`` in; return the arrays that will receive the logits and the hidden states,
        if wanted."""
        tokens, rows, sequences = len(batch.tokens), len(batch.rows), batch.sequence_count
        _check_count("tokens", tokens, self._limits.max_tokens)
        _check_count("rows", rows, self._limits.max_rows)
        _check_count("sequences", sequences, self._limits.max_sequences)
        if not tokens == len(batch.positions) == len(batch.sequences):
            raise NativeError("batch: tokens, positions and sequences differ in length")
        if len(batch.samplers) != rows:
            raise NativeError(f"batch: {len(batch.samplers)} samplers for {rows} rows")
        self._tokens[:tokens] = batch.tokens
        self._positions[:tokens] = batch.positions
        self._sequences[:tokens] = batch.sequences
        self._rows[:rows] = batch.rows
        self._fill_tables(batch.block_tables, sequences)
        hidden = self._fill_hidden(batch)
        self._fill_adapters(batch.adapters, sequences)
        target = self._batch
        target.draft, target.workers = batch.draft, batch.workers
        target.patient = batch.patient
        target.tokens_count, target.rows_count, target.sequence_count = tokens, rows, sequences
        self._borrowed.clear()
        sampling = False
        for row, sampler in enumerate(batch.samplers):
            if sampler is None:
                self._samplers[row].sample = 0
            else:
                sampling = True
                self._fill_sampler(row, sampler)
        target.samplers = ctypes.addressof(self._samplers) if sampling else None
        if not batch.want_logits:
            target.logits = None
            return None, hidden
        logits = np.empty((rows, self._vocab), np.float32)
        target.logits = logits.ctypes.data
        return logits, hidden

    def _fill_adapters(self, adapters: Int32, sequences: int) -> None:
        if len(adapters) == 0:
            self._batch.adapters = None
            return
        if len(adapters) != sequences:
            raise NativeError(f"batch: {len(adapters)} adapters for {sequences} sequences")
        self._adapters[:sequences] = adapters
        self._batch.adapters = self._adapters.ctypes.data

    def _fill_hidden(self, batch: Batch) -> Float32 | None:
        count, target = len(batch.hidden_rows), self._batch
        target.hidden_count, target.hidden = count, None
        if count == 0:
            return None
        _check_count("hidden rows", count, self._limits.max_tokens)
        if self._hidden_width == 0:
            raise NativeError("batch: hidden states are wanted, which the program does not give")
        self._hidden_rows[:count] = batch.hidden_rows
        hidden = np.empty((count, self._hidden_width), np.float32)
        target.hidden = hidden.ctypes.data
        return hidden

    def _fill_tables(self, tables: tuple[Int32, ...], sequences: int) -> None:
        """Copy the block tables in, one after the other without a gap."""
        if len(tables) != len(self._tables):
            raise NativeError(
                f"batch: {len(tables)} block tables, expected one for each of "
                f"{len(self._tables)} groups"
            )
        flat = self._tables.reshape(-1)[: len(tables) * sequences * self._stride]
        for target, table in zip(
            flat.reshape(len(tables), sequences, self._stride), tables, strict=True
        ):
            rows, width = table.shape
            if rows != sequences or width > self._stride:
                raise NativeError(
                    f"batch: a block table is [{rows}, {width}], "
                    f"expected [{sequences}, up to {self._stride}]"
                )
            target[:, :width] = table
            target[:, width:] = -1

    def _fill_sampler(self, row: int, sampler: RowSampler) -> None:
        out, params = self._samplers[row], sampler.params
        if params is not self._params[row]:  # unchanged from step to step for a running sequence
            self._params[row] = params
            for name in SCALARS:
                value = getattr(params, name)
                setattr(out, name, -1 if value is None else value)
        out.sample = 1
        out.target = sampler.target
        out.seed = sampler.seed & 0xFFFF_FFFF_FFFF_FFFF
        out.counter = sampler.counter
        penalized = (
            params.repetition_penalty != 1.0
            or params.presence_penalty != 0.0
            or params.frequency_penalty != 0.0
            or params.dry_multiplier != 0.0
        )
        if penalized:
            out.history = self._borrow(sampler.history, np.int32)
            out.history_length = len(sampler.history)
            out.prompt_length = sampler.prompt_length
        else:
            out.history_length = out.prompt_length = 0
        out.bias_ids, out.bias_count = params.bias_ids.buffer_info()
        out.bias_values, _ = params.bias_values.buffer_info()
        out.allowed = self._mask(sampler.allowed)
        out.breakers = self._mask(sampler.breakers)

    def _mask(self, mask: UInt32 | None) -> int | None:
        if mask is None:
            return None
        words = -(-self._vocab // 32)
        if len(mask) != words:
            raise NativeError(f"batch: a mask of tokens has {len(mask)} words, expected {words}")
        return self._borrow(mask, np.uint32)

    def _borrow(self, values: object, dtype: type[np.generic]) -> int:
        array = np.ascontiguousarray(values, dtype)
        self._borrowed.append(array)
        return array.ctypes.data

    def result(self, batch: Batch, logits: Float32 | None) -> StepResult:
        """Return what the core left for the rows of ``batch``."""
        count = len(batch.rows)
        if not any(sampler is not None for sampler in batch.samplers):
            none: list[None] = [None] * count
            return StepResult(np.full(count, -1, np.int32), none, none, logits)
        samples = self._sample_view[:count]
        return StepResult(
            ids=samples["id"].copy(),
            logprobs=[
                _logprobs(self._samples[row]) if _wants_logprobs(sampler) else None
                for row, sampler in enumerate(batch.samplers)
            ],
            errors=[_FAILURES.get(status) for status in samples["status"].tolist()],
            logits=logits,
        )


def _check_count(name: str, count: int, limit: int) -> None:
    if count > limit:
        raise NativeError(f"batch: {count} {name}, the executor was loaded for at most {limit}")


def _wants_logprobs(sampler: RowSampler | None) -> bool:
    return sampler is not None and sampler.params.top_logprobs is not None


def _logprobs(sample: abi.Sample) -> TokenLogprobs | None:
    if sample.status != 0:
        return None
    count = sample.top_count
    return TokenLogprobs(
        logprob=sample.logprob,
        top=tuple(zip(sample.top_ids[:count], sample.top_logprobs[:count], strict=True)),
    )
