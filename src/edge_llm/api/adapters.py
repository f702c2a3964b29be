"""LoRA adapters in PEFT's folder layout, put beside the weights of a program as it is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.program.file import Program
from edge_llm.program.plan import Plan
from edge_llm.runner.adapters.adapter import Adapter, LowRank
from edge_llm.runner.adapters.copies import is_near
from edge_llm.runner.adapters.factors import Factors
from edge_llm.runner.adapters.parameters import Part, parameters_of
from edge_llm.runner.adapters.plan import Adapted, adapted

if TYPE_CHECKING:
    from edge_llm.llm.checkpoints.huggingface.peft import Pair, PeftFolder

_CODES = {"F16": "f16", "BF16": "bf16", "F32": "f32"}
_PIECE = 2**20


def with_adapters(program: Program, folders: Mapping[str, Path]) -> Adapted | None:
    """Return the program's plan with the adapters in ``folders`` by name; None where there are
    none.

    Raises:
        ConfigError: a kind of adapter that is not supported, a program that is rotated, or one that
            does not tell what its matrices were multiplied with.
        CheckpointError: a folder that is damaged, or adapts what the program has not.
        ProgramError: what the program says of its matrices is damaged.
    """
    if not folders:
        return None
    plan = program.plan
    rotated = program.documents.recipe.get("rotate")
    if rotated is not None:
        raise ConfigError(
            f"{program.path.name} was exported with rotate={rotated}, which adapters beside a "
            "program do not follow",
            hint="export the model without it, or merge the adapter: edge-llm export --adapter",
        )
    if not program.tells_factors and any(w.format.group for w in plan.weights):
        raise ConfigError(
            f"{program.path.name} was exported before adapters could be put beside a program: it "
            "does not tell what its matrices were multiplied with",
            hint="export the model again, or merge the adapter: edge-llm export --adapter",
        )
    adapters = [_read(program, plan, name, path) for name, path in folders.items()]
    return adapted(plan, adapters, Factors(program.factors))


def _read(program: Program, plan: Plan, name: str, folder: Path) -> Adapter:
    from edge_llm.llm.checkpoints.huggingface.peft import open_peft

    peft = open_peft(folder)
    parts = parameters_of(plan)
    lines: list[str] = []
    pairs: dict[str, LowRank] = {}
    left = set(peft.tensors.entries)
    for pair in peft.pairs():
        left -= {pair.a, pair.b}
        parameter = f"{pair.module}.weight"
        part = parts.get(parameter)
        if part is None or part.table != pair.embedding:
            lines.append(f"unknown: {pair.module!r:.160}")
            continue
        wrong = peft.problems(pair, (part.rows, part.columns))
        for tensor in () if wrong else (pair.a, pair.b):
            if (dtype := peft.tensors.entries[tensor].dtype) not in _CODES:
                wrong.append(f"{tensor!r:.160}: got {dtype}, expected one of {', '.join(_CODES)}")
        lines += wrong
        if not wrong:
            pairs[parameter] = _low_rank(peft, pair)
    for tensor in sorted(left):
        lines += _copy_problems(program, plan, parts, peft, tensor)
    if not pairs and not lines:
        lines.append("no tensors")
    if lines:
        listing = "".join(f"\n  {line}" for line in lines[:20])
        more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
        raise CheckpointError(f"{peft.path} does not adapt {program.path.name}:{listing}{more}")
    return Adapter(name, _digest(peft.config_path, peft.weights_path), pairs)


def _low_rank(peft: PeftFolder, pair: Pair) -> LowRank:
    dtypes = {peft.tensors.entries[name].dtype for name in (pair.a, pair.b)}
    return LowRank(
        pair.rank,
        lambda: peft.read(pair.a),
        lambda: peft.read(pair.b, pair.scale),
        pair.embedding,
        _CODES[dtypes.pop()] if len(dtypes) == 1 else "f32",
    )


def _copy_problems(
    program: Program, plan: Plan, parts: Mapping[str, Part], peft: PeftFolder, tensor: str
) -> list[str]:
    """Return what is wrong with a tensor that belongs to no pair. PEFT stores embedding and head
    beside their adapters, which the program has itself, rounded."""
    from edge_llm.llm.checkpoints.huggingface.peft import copied_parameter

    parameter = copied_parameter(tensor)
    part = parts.get(parameter)
    if part is None:
        return [f"left over: {tensor!r:.160}"]
    entry = peft.tensors.entries[tensor]
    if entry.shape != (part.rows, part.columns) or entry.dtype not in _CODES:
        got = f"{entry.dtype}{list(entry.shape)}"
        return [f"{tensor!r:.160}: got {got}, expected {[part.rows, part.columns]}"]
    weight = plan.weights[part.weight]
    if is_near(peft.read(tensor), program.weight_data(weight), weight, part):
        return []
    return [
        f"{tensor!r:.160}: its values are not those of {parameter}, expected the same: it was "
        "trained on another model, or trained that matrix as a whole, which is not supported"
    ]


def _digest(*files: Path) -> bytes:
    """Return what stands for the bytes of these files."""
    digest = hashlib.blake2b(digest_size=32, person=b"adapter")
    try:
        for path in files:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
            digest.update(path.stat().st_size.to_bytes(8, "little"))
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    return digest.digest()
