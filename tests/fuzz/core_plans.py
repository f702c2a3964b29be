"""Plans and batches that no check of ours has seen, handed to the native core: it must refuse them
or run them. Pointers and the sizes of what they point to stay true: they are the caller's word."""

from __future__ import annotations

import ctypes
import json
import os
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
from mutations import NUMBERS, mutate_number

CHANGES = "changes.json"
# The counts of the program's tables may only shrink.
COUNTS = ("value_count", "weight_count", "state_count", "instruction_count", "group_count")
KEPT = ("data", "bytes", "values", "weights", "states", "instructions", "blocks", "threads")
BATCH = ("tokens", "positions", "sequences", "rows", "hidden_rows", "block_tables")


def make_core(random: Random, seeds: Path, folder: Path) -> None:
    """Changes as [table, place in it from 0 to 1, field from 0 to 1, seed of the new value]."""
    source = random.choice(sorted(seeds.iterdir()))
    os.link(source / "input.edge", folder / "input.edge")
    tables = ("program", "limits", "values", "weights", "states", *("instructions",) * 5, "batch")
    changes = [
        [random.choice(tables), random.random(), random.random(), random.randrange(2**32)]
        for _ in range(min(6, 1 + int(random.expovariate(0.8))))
    ]
    (folder / CHANGES).write_text(json.dumps(changes), encoding="ascii")


def read_core(folder: Path) -> None:
    from edge_llm.program.file import Program
    from edge_llm.runner.backends import native
    from edge_llm.runner.backends.native_program import native_limits, native_program
    from edge_llm.runner.executor import Batch, Limits

    changes = json.loads((folder / CHANGES).read_bytes()) if (folder / CHANGES).exists() else []
    with Program.open(folder / "input.edge") as file:
        weights = {weight.tensor: file.weight_data(weight) for weight in file.plan.weights}
        aligned = {name: native.aligned(data.copy()) for name, data in weights.items()}
        program = native_program(file.plan, aligned, file.documents.tokenizer.size)
        for table, place, field, seed in changes:
            if table not in ("batch", "limits"):
                _change(program, table, place, field, Random(seed))
        # The buffers of a step have the sizes that the plan asks for.
        plan = replace(file.plan, context=program.context, vocab=program.vocab)
        limits = Limits(
            max_tokens=8,
            max_rows=8,
            max_sequences=2,
            blocks=(2,) * len(plan.groups),
            kv_dtype="f16",
            threads=1,
        )
        stored = native_limits(replace(limits, context=max(plan.context, 1)))
        for table, place, field, seed in changes:
            if table == "limits":
                _change(stored, table, place, field, Random(seed))
        with (
            mock.patch.object(native, "native_program", return_value=program),
            mock.patch.object(native, "native_limits", return_value=stored),
        ):
            executor = native.load(plan, aligned, sampleable=program.sampleable, limits=limits)
        try:
            hidden = program.values[program.hidden].width if program.hidden >= 0 else 0
            executor._steps._hidden_width = hidden
            batch: dict[str, Any] = {
                "tokens": np.zeros(5, np.int32),
                "positions": np.arange(5, dtype=np.int32),
                "sequences": np.zeros(5, np.int32),
                "rows": np.arange(5, dtype=np.int32),
                "hidden_rows": np.arange(5, dtype=np.int32),
                "block_tables": np.zeros((len(plan.groups), 1, 1), np.int32),
            }
            for table, place, field, seed in changes:
                if table == "batch":
                    values = batch[BATCH[int(field * len(BATCH))]].reshape(-1)
                    values[int(place * values.size)] = _int32(_number(Random(seed), 3))
            batch["block_tables"] = tuple(batch["block_tables"])
            step = Batch(**batch, samplers=[None] * 5, want_logits=True)
            executor.step(step)
            executor.step(step)
        finally:
            executor.close()


def prepare_core() -> None:
    import edge_llm.program.file
    import edge_llm.runner.backends.native  # noqa: F401


def _change(program: Any, table: str, place: float, field: float, random: Random) -> None:
    """A number in one of the program's tables becomes another."""
    if table in ("program", "limits"):
        entry = program
    else:
        count = getattr(program, f"{table.removesuffix('s')}_count")
        if count <= 0:
            return
        entry = getattr(program, table)[int(place * count)]
    names = [name for name, *_ in entry._fields_ if name not in KEPT]
    name = names[int(field * len(names))]
    value = getattr(entry, name)
    if isinstance(value, ctypes.Array):
        at = random.randrange(len(value))
        value[at] = _other(random, value[at])
    elif name in COUNTS:
        setattr(entry, name, random.randrange(-1, value + 1))
    else:
        setattr(entry, name, _other(random, value))


def _other(random: Random, value: int | float) -> int | float:
    if isinstance(value, float):
        return random.choice((0.0, -1.0, 1e38, float("nan"), float("inf"), value * 2))
    return _int32(_number(random, value))


def _number(random: Random, value: int) -> int:
    """Mostly another number that could stand there."""
    if random.random() < 0.5:
        return random.choice((value - 1, value + 1, random.randrange(20)))
    return int(mutate_number(random, random.choice((value, *NUMBERS))))


def _int32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31
