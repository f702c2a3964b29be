"""The PyTorch backend: interprets the plan one instruction at a time, from the same packed weights.

It is the oracle of the native core (see `run_instruction`) and the way to GPUs. Written to be read
against the operator table, not to be fast: integer weights are dequantized whenever they are used.
Operators with a state are here, the others in `torch_operators.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_llm.errors import ConfigError, NativeError
from edge_llm.program.cost import kv_row_bytes, page_bytes
from edge_llm.program.formats import RAW_F32
from edge_llm.program.hidden import DraftPart, Tail, draft_part, hidden_tail
from edge_llm.program.ops import OPS
from edge_llm.program.pack import unpack_floats, unpack_integers
from edge_llm.program.plan import (
    INPUT_NAMES,
    POSITIONS,
    ROWS,
    SEQUENCES,
    TOKENS,
    Instruction,
    Plan,
    State,
    Weight,
)
from edge_llm.runner.backends.reference_sampler import sample_rows
from edge_llm.runner.backends.torch_operators import (
    ADAPTER_OPERATORS,
    OPERATORS,
    Matrix,
    present,
)
from edge_llm.runner.executor import Batch, Float32, Limits, StateGroup, StepResult

BLOCK_SIZE = 64
_NO_BYTES = "blocks of the backend torch cannot be kept: they are tensors"
_CACHES = {"f32": torch.float32, "f16": torch.float16, "i8": torch.int8}
_STORED = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


def block_size() -> int:
    """Return the positions of a block."""
    return BLOCK_SIZE


def groups(plan: Plan, kv_dtype: str) -> tuple[StateGroup, ...]:
    """Return the groups of this plan's states in a cache of ``kv_dtype``."""
    return tuple(
        StateGroup(
            group.window,
            sum(page_bytes(plan.states[state], kv_dtype, BLOCK_SIZE) for state in group.states),
        )
        for group in plan.groups
    )


def load(
    plan: Plan,
    weights: Mapping[str, NDArray[np.uint8]],
    *,
    sampleable: int,
    limits: Limits,
    device: str | None = None,
) -> TorchExecutor:
    """Unpack ``weights`` (packed bytes by tensor name) onto ``device``: "cpu", "cuda", "mps", None
    for the best that is there. Token ids from ``sampleable`` on are never sampled.

    Raises:
        ConfigError: there is no such device.
    """
    return TorchExecutor(plan, weights, sampleable, limits, _device(device))


def _device(name: str | None) -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name is None:
        name = next((kind for kind, is_there in there.items() if is_there), "cpu")
    if name != "cpu" and not there.get(name.partition(":")[0], False):
        raise ConfigError(f"torch device {name!r} is not there")
    return torch.device(name)


class TorchExecutor:
    """Implements `Executor` with PyTorch. Not thread-safe."""

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, NDArray[np.uint8]],
        sampleable: int,
        limits: Limits,
        device: torch.device,
    ) -> None:
        self._plan = plan
        self._limits = replace(limits, context=limits.context or plan.context)
        self._groups = {  # by state
            state: number for number, group in enumerate(plan.groups) for state in group.states
        }
        self._sampleable = sampleable
        self._device = device
        if limits.threads:
            torch.set_num_threads(limits.threads)
        unpacked: dict[str, Matrix] = {}  # tied weights once
        for weight in plan.weights:
            if weight.tensor not in unpacked:
                unpacked[weight.tensor] = self._unpack(weight, weights[weight.tensor])
        self._weights = [unpacked[weight.tensor] for weight in plan.weights]
        self._pages = [  # by state: what it keeps, [blocks, ..] each
            tuple(
                torch.zeros(
                    (limits.blocks[self._groups[number]], *shape),
                    dtype=dtype,
                    device=device,
                )
                for shape, dtype in _kept(state, limits.kv_dtype)
            )
            for number, state in enumerate(plan.states)
        ]
        self._last_use = {
            number: index for index, op in enumerate(plan.instructions) for number in op.inputs
        }
        self._tail, self._draft = hidden_tail(plan), draft_part(plan)
        self._numbered = _with_values(plan, self._tail, self._draft)
        kept = [*range(len(INPUT_NAMES)), plan.output]
        if self._tail is not None:
            kept += [self._tail.output, *(n for op in self._tail.instructions for n in op.inputs)]
        for number in kept:
            self._last_use[number] = len(plan.instructions)  # never freed
        self._trace: dict[int, Tensor] = {}

    @property
    def limits(self) -> Limits:
        return self._limits

    def step(self, batch: Batch) -> StepResult:
        """Run one step; see `Executor`."""
        values = self._inputs(batch)
        if batch.draft:
            with torch.inference_mode():
                drafted = self._make_draft(values, batch)
            return sample_rows(drafted, batch.samplers, self._sampleable, batch.want_logits)
        with torch.inference_mode():
            for index, op in enumerate(self._plan.instructions):
                outputs = self._run(op, [values[number] for number in op.inputs], batch)
                values.update(zip(op.outputs, outputs, strict=True))
                if not self._limits.trace:
                    for number in set(op.inputs):
                        if self._last_use[number] == index:
                            del values[number]
            self._trace = dict(values) if self._limits.trace else {}
            hidden = None
            if len(batch.hidden_rows) or self._draft is not None:
                hidden = self._hidden(values, batch)
            if self._draft is not None:  # its states are filled, and what else it gives is left
                self._run_all(self._draft.instructions, values, batch)
        logits: Float32 = values[self._plan.output].float().cpu().numpy()
        result = sample_rows(logits, batch.samplers, self._sampleable, batch.want_logits)
        return replace(result, hidden=hidden)

    def _hidden(self, values: dict[int, Tensor], batch: Batch) -> Float32:
        """Return the hidden states of the wanted tokens, [H, width]."""
        if self._tail is None:
            raise NativeError("batch: hidden states are wanted, which the program does not give")
        self._run_all(self._tail.instructions, values, batch)
        states: Float32 = values[self._tail.output].float().cpu().numpy()
        return states[batch.hidden_rows]

    def _run_all(
        self, instructions: Sequence[Instruction], values: dict[int, Tensor], batch: Batch
    ) -> None:
        for op in instructions:
            outputs = self._run(op, [values[number] for number in op.inputs], batch)
            values.update(zip(op.outputs, outputs, strict=True))

    def _make_draft(self, values: dict[int, Tensor], batch: Batch) -> Float32:
        """Return the logits of a draft, [R, vocab]. Its own hidden states are kept in place of the
        language model's."""
        draft = self._draft
        if draft is None:
            raise NativeError("batch: a draft is wanted, which the program does not make")
        keep = next(op for op in draft.instructions if op.op == "previous")
        for op in draft.instructions:
            if op is keep:
                values[op.outputs[0]] = self._rows_before(op, batch)
            else:
                self._run_all([op], values, batch)
        self._keep_rows(keep, values[draft.output], batch)
        logits: Float32 = values[draft.logits].float().cpu().numpy()
        return logits

    def run_instruction(
        self, index: int, inputs: Sequence[NDArray[np.generic]], batch: Batch
    ) -> list[Float32]:
        """Run instruction ``index`` of the plan alone on ``inputs``, which need not be what this
        executor would compute itself. Attention writes to and reads from this executor's blocks.

        Returns:
            its outputs, [rows, width] each.
        """
        tensors = [torch.from_numpy(np.array(value)).to(self._device) for value in inputs]
        with torch.inference_mode():
            outputs = self._run(self._plan.instructions[index], tensors, batch)
        return [output.cpu().numpy() for output in outputs]

    def copy_block(self, group: int, source: int, target: int) -> None:
        """Copy a whole block of a group of states."""
        for state in self._plan.groups[group].states:
            for pages in self._pages[state]:
                pages[target] = pages[source]

    def block_bytes(self, group: int) -> int:
        """Refuse; see `read_block`."""
        raise NativeError(_NO_BYTES)

    def read_block(self, group: int, block: int) -> bytes:
        """Refuse: blocks are tensors here, which no other process could go on from."""
        raise NativeError(_NO_BYTES)

    def write_block(self, group: int, block: int, data: bytes) -> None:
        """Refuse; see `read_block`."""
        raise NativeError(_NO_BYTES)

    def read_value(self, value: int) -> Float32:
        """Return value number ``value`` of the last step, [rows, width]; needs ``limits.trace``."""
        if value not in self._trace:
            raise NativeError(f"value {value} cannot be read: not traced, or no step has run")
        array: Float32 = self._trace[value].float().cpu().numpy()
        return array

    def close(self) -> None:
        """Free weights and blocks."""
        for held in (self._weights, self._pages, self._trace):
            held.clear()

    def _unpack(self, weight: Weight, data: NDArray[np.uint8]) -> Matrix:
        if weight.format == RAW_F32:
            raw = np.array(data.view(np.float32)).reshape(weight.shape)
            return Matrix(torch.from_numpy(raw).to(self._device))
        if weight.format.is_float:
            floats = torch.from_numpy(unpack_floats(data, weight.format, *weight.matrix))
            return Matrix(floats.to(self._device, _STORED[weight.format.code]))
        parts = unpack_integers(data, weight.format, *weight.matrix)
        if parts.minimum is not None or weight.format.scale not in ("f16", "f32"):
            values = torch.from_numpy(parts.dequantize()).to(self._device)
            return Matrix(values, rounding=weight.activations)
        codes, scales = (torch.from_numpy(np.array(part)) for part in (parts.codes, parts.scale))
        scales = scales.float().to(self._device)
        return Matrix(codes.to(self._device), scales, rounding=weight.activations)

    def _inputs(self, batch: Batch) -> dict[int, Tensor]:
        arrays = {
            TOKENS: batch.tokens,
            POSITIONS: batch.positions,
            SEQUENCES: batch.sequences,
            ROWS: batch.rows,
        }
        return {
            number: torch.from_numpy(np.array(array)).to(self._device)
            for number, array in arrays.items()
        }

    # ---- operators: inputs are (rows, width) float32, outputs too ----

    def _run(self, op: Instruction, inputs: list[Tensor], batch: Batch) -> list[Tensor]:
        rows = None  # those that the outputs are of; None: all tokens
        if self._numbered.values[op.outputs[0]].rows == "R":
            rows = torch.from_numpy(np.array(batch.rows)).to(self._device).long()
            inputs = [
                value[rows] if number in (POSITIONS, SEQUENCES) else value
                for number, value in zip(op.inputs, inputs, strict=True)
            ]
        if OPS[op.op].cost == "attention":
            return [self._attention(op, inputs, batch)]
        weights = self._weights_of(op)
        if op.op in ADAPTER_OPERATORS:
            sequences = (batch.sequences if rows is None else batch.sequences[batch.rows]).tolist()
            adapters = batch.adapters.tolist() or [-1] * batch.sequence_count
            chosen = [adapters[sequence] for sequence in sequences]
            return [ADAPTER_OPERATORS[op.op](op, inputs, present(weights[0]), chosen)]
        if op.op == "causal_conv":
            return [self._causal_conv(op, inputs[0], weights, batch)]
        if op.op == "previous":
            self._keep_rows(op, inputs[0], batch)
            return [self._rows_before(op, batch)]
        if op.op == "gated_delta":
            return [self._gated_delta(op, inputs, batch)]
        if op.op == "state_space":
            return [self._state_space(op, inputs, weights, batch)]
        return OPERATORS[op.op](self._numbered, op, inputs, weights)

    def _weights_of(self, op: Instruction) -> list[Matrix | None]:
        """Return the weights of an instruction, None for those that it goes without."""
        missing = (-1,) * (len(OPS[op.op].weights) - len(op.weights))
        return [self._weights[i] if i >= 0 else None for i in (*op.weights, *missing)]

    def _attention(self, op: Instruction, inputs: list[Tensor], batch: Batch) -> Tensor:
        heads, kv_heads, head_dim = (
            int(op.attributes[name]) for name in ("heads", "kv_heads", "head_dim")
        )
        total = len(inputs[0])
        q = inputs[0].reshape(total, heads, head_dim)  # (T or R, H, D)
        all_positions, sequences = (index.long() for index in inputs[-2:])
        keys, values = self._pages[op.state]
        tables = batch.block_tables[self._groups[op.state]]
        window = self._plan.states[op.state].window
        weights = self._weights_of(op)  # none of `attend`
        sinks = weights[0].values if weights and weights[0] is not None else None
        out = torch.empty_like(q)
        for sequence in np.unique(sequences.cpu().numpy()).tolist():
            mine = (sequences == sequence).nonzero().squeeze(1)
            positions = all_positions[mine]
            end = int(positions.max()) + 1
            table = torch.from_numpy(np.array(tables[sequence])).to(self._device).long()
            if OPS[op.op].writes:
                blocks, slots = table[positions // BLOCK_SIZE], positions % BLOCK_SIZE
                for x, pages in zip(inputs[1:3], (keys, values), strict=True):
                    rows = x.reshape(total, kv_heads, head_dim)[mine]
                    pages[blocks, slots] = _to_cache(rows, pages.dtype)
            # What was just written is read back, so that its rounding is that of the cache.
            # Blocks behind the window may be gone.
            first = max(0, int(positions.min()) - window + 1) // BLOCK_SIZE if window else 0
            begin = first * BLOCK_SIZE
            read = table[first : -(-end // BLOCK_SIZE)]
            k_all = _from_cache(keys[read].flatten(0, 1)[: end - begin])  # (S, Hkv, D)
            v_all = _from_cache(values[read].flatten(0, 1)[: end - begin])
            out[mine] = _attend(op, window, sinks, q[mine], k_all, v_all, positions - begin)
        return out.reshape(total, heads * head_dim)

    def _gated_delta(self, op: Instruction, inputs: list[Tensor], batch: Batch) -> Tensor:
        eps, scale = float(op.attributes["eps"]), float(op.attributes["scale"])
        q, k = (
            x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)
            for x in self._of_value_heads(op, inputs[:2])
        )
        v = inputs[2].reshape(len(inputs[2]), -1, int(op.attributes["v_dim"]))
        decay, strength = inputs[3:5]

        def update(t: int, matrix: Tensor) -> Tensor:
            predicted = (matrix * k[t][:, :, None]).sum(1)
            return strength[t][:, None] * (v[t] - predicted)

        return self._fold(op, q * scale, k, decay, update, batch)

    def _state_space(
        self, op: Instruction, inputs: list[Tensor], weights: list[Matrix | None], batch: Batch
    ) -> Tensor:
        q, k = self._of_value_heads(op, inputs[:2])
        v = inputs[2].reshape(len(inputs[2]), -1, int(op.attributes["v_dim"]))
        step = inputs[3]
        rate, skip = (present(weight).values for weight in weights)
        decay = torch.exp(-torch.exp(rate) * step)
        out = self._fold(op, q, k, decay, lambda t, matrix: step[t][:, None] * v[t], batch)
        return out + (skip[:, None] * v).flatten(1)

    def _of_value_heads(self, op: Instruction, inputs: list[Tensor]) -> list[Tensor]:
        """Return queries and keys [T, heads, k_dim], once for each value head."""
        key_heads, heads, k_dim = (
            int(op.attributes[name]) for name in ("key_heads", "heads", "k_dim")
        )
        return [
            x.reshape(len(x), key_heads, k_dim).repeat_interleave(heads // key_heads, dim=1)
            for x in inputs
        ]

    def _fold(
        self,
        op: Instruction,
        q: Tensor,
        k: Tensor,
        decay: Tensor,
        update: Callable[[int, Tensor], Tensor],
        batch: Batch,
    ) -> Tensor:
        """The recurrence as it is written, over all rows of a page that the step reaches.
        ``update(t, matrix)`` gives what token t adds to the decayed matrix, times its key."""
        starts, keys, updates, decays = self._pages[op.state]
        table = batch.block_tables[self._groups[op.state]]
        heads, v_dim = int(op.attributes["heads"]), int(op.attributes["v_dim"])
        out = torch.empty(len(q), heads, v_dim, device=self._device)

        def folded(page: int, rows: int) -> Tensor:
            """The matrices behind some rows of a page."""
            matrix = starts[page, 0]
            for row in range(rows):
                added = keys[page, row][:, :, None] * updates[page, row][:, None, :]
                matrix = matrix * decays[page, row][:, None, None] + added
            return matrix

        kept: dict[int, Tensor] = {}  # by sequence: behind the token before
        for t, (sequence, position) in enumerate(
            zip(batch.sequences.tolist(), batch.positions.tolist(), strict=True)
        ):
            number, row = divmod(position, BLOCK_SIZE)
            page = int(table[sequence][number])
            if sequence not in kept:
                before = int(table[sequence][number - 1]) if number and not row else -1
                kept[sequence] = folded(page, row) if row else torch.zeros_like(starts[page, 0])
                if before >= 0:
                    kept[sequence] = folded(before, BLOCK_SIZE)
            if row == 0:
                starts[page, 0] = kept[sequence]
            matrix = kept[sequence] * decay[t][:, None, None]
            added = update(t, matrix)
            keys[page, row], updates[page, row], decays[page, row] = k[t], added, decay[t]
            kept[sequence] = matrix + k[t][:, :, None] * added[:, None, :]
            out[t] = (kept[sequence] * q[t][:, :, None]).sum(1)
        return out.reshape(len(out), heads * v_dim)

    def _rows_of(self, op: Instruction, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the pages of a state of rows, its block table, and sequences and positions."""
        (pages,) = self._pages[op.state]
        table, sequences, positions = (
            torch.from_numpy(np.array(array)).to(self._device).long()
            for array in (
                batch.block_tables[self._groups[op.state]],
                batch.sequences,
                batch.positions,
            )
        )
        return pages, table, sequences, positions

    def _keep_rows(self, op: Instruction, x: Tensor, batch: Batch) -> None:
        pages, table, sequences, positions = self._rows_of(op, batch)
        pages[table[sequences, positions // BLOCK_SIZE], positions % BLOCK_SIZE] = x

    def _rows_before(self, op: Instruction, batch: Batch) -> Tensor:
        """Return the rows of the positions before; zeros before position 0."""
        pages, table, sequences, positions = self._rows_of(op, batch)
        before = (positions - 1).clamp(min=0)
        rows = pages[table[sequences, before // BLOCK_SIZE], before % BLOCK_SIZE]
        return rows.where((positions > 0).unsqueeze(1), 0.0)

    def _causal_conv(
        self, op: Instruction, x: Tensor, weights: list[Matrix | None], batch: Batch
    ) -> Tensor:
        self._keep_rows(op, x, batch)
        pages, table, sequences, positions = self._rows_of(op, batch)
        taps, bias = present(weights[0]).values, weights[1]
        out = torch.zeros_like(x) if bias is None else bias.values.expand_as(x).clone()
        for tap in range(taps.shape[1]):
            seen = positions - (taps.shape[1] - 1 - tap)
            there = (seen >= 0).nonzero().squeeze(1)
            at = seen[there]
            rows = pages[table[sequences[there], at // BLOCK_SIZE], at % BLOCK_SIZE]
            out[there] += taps[:, tap] * rows
        return out


def _with_values(plan: Plan, *parts: Tail | DraftPart | None) -> Plan:
    """Return ``plan`` with the values of these parts behind those of its language model."""
    model = plan.language_model
    values = model.values + tuple(value for part in parts if part for value in part.values)
    name = next(name for name, method in plan.methods.items() if method is model)
    return replace(plan, methods={**plan.methods, name: replace(model, values=values)})


def _kept(state: State, kv_dtype: str) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Return the shape and type of each part of what a state keeps in a block."""
    sizes = state.sizes
    if state.kind == "rows":
        return [((BLOCK_SIZE, sizes["width"]), torch.float32)]
    if state.kind == "fold":  # the matrices before it; keys, updates and decays of its rows
        heads, k_dim, v_dim = (sizes[name] for name in ("heads", "k_dim", "v_dim"))
        rows = [(BLOCK_SIZE, heads, *shape) for shape in ((k_dim,), (v_dim,), ())]
        return [(shape, torch.float32) for shape in ((1, heads, k_dim, v_dim), *rows)]
    dtype = _CACHES[kv_dtype]
    # An int8 row ends with the four bytes of its scale.
    widths = (kv_row_bytes(sizes[name], kv_dtype) // dtype.itemsize for name in ("k_dim", "v_dim"))
    return [((BLOCK_SIZE, sizes["heads"], width), dtype) for width in widths]


def _to_cache(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows (..., D) as the cache keeps them; int8 as in
    runner/native/attention/attention.h."""
    if dtype != torch.int8:
        return x.to(dtype)
    scale = (x.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=_SMALLEST_NORMAL)
    scale[~x.isfinite().all(dim=-1)] = torch.nan
    q = torch.round(x * (1 / scale)).clamp(-127, 127).nan_to_num(0)
    return torch.cat((q.to(torch.int8), scale.view(torch.int8)), dim=-1)


def _from_cache(rows: Tensor) -> Tensor:
    if rows.dtype != torch.int8:
        return rows.float()
    return rows[..., :-4] * rows[..., -4:].contiguous().view(torch.float32)


def _attend(
    op: Instruction,
    window: int,
    sinks: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
) -> Tensor:
    """Attention of q (T, H, D) at ``positions`` over keys and values (S, Hkv, D): causal, unless it
    is bidirectional."""
    cap = float(op.attributes["softcap"])
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1).transpose(0, 1) for x in (k, v))  # (H, S, D)
    scores = q.transpose(0, 1) @ k.transpose(1, 2) * float(op.attributes["scale"])  # (H, T, S)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    distance = positions[:, None] - torch.arange(k.shape[1], device=q.device)
    if op.attributes.get("bidirectional"):
        distance = distance.abs()
    hidden = distance < 0
    if window:
        hidden |= distance >= window
    scores = scores.masked_fill(hidden, float("-inf"))
    if sinks is not None:
        scores = torch.cat((scores, sinks[:, None, None].expand(-1, len(positions), 1)), dim=-1)
    probabilities = torch.softmax(scores, dim=-1)[..., : k.shape[1]]
    return (probabilities @ v).transpose(0, 1)
