"""Stage verify: the unfinished program against eager PyTorch, teacher-forced.

Fixed prompts are continued greedily by the program itself; both sides then compute the logits of
every position of the beginnings of these texts. The program is compared with two eager models: one
with the numbers that the file holds (is the plan right, and do the kernels compute it?), and the
unquantized checkpoint (what does the recipe cost?).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_llm.errors import QualityGateError
from edge_llm.export.lowering.graph import Planned
from edge_llm.export.recipes.recipe import Gate
from edge_llm.export.report import WeightRow
from edge_llm.export.verification.answers import answers_of
from edge_llm.export.verification.metrics import Comparison, compare_all
from edge_llm.export.verification.numbers import Opened, packed, unrounded
from edge_llm.export.verification.readback import ReadBack
from edge_llm.export.verification.streamed import streamed_model
from edge_llm.export.verification.threads import on_all_cores
from edge_llm.export.weights.parameters import Parameters
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.models.experts import forced_routes
from edge_llm.llm.models.ops import CACHE_DTYPES
from edge_llm.program.file import Program

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Verification:
    """``golden`` maps the file's golden tensors to their values. The program is compared with eager
    PyTorch of the ``same_numbers`` and with the ``unquantized`` checkpoint, and so is that eager
    model (``eager_unquantized``): int8 activations turn the smallest difference in the order of
    additions into another rounding somewhere, and layers amplify it, so that two correct
    implementations differ visibly at a position. What they lose to the checkpoint must agree.

    Where a model has experts, both eager models use those that the program chose: ``route_flips``
    are the shares of choices, of all tokens in all layers, that they would have made otherwise."""

    golden: Mapping[str, NDArray[Any]]
    same_numbers: Comparison
    unquantized: Comparison
    eager_unquantized: Comparison
    route_flips: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The comparisons as JSON values."""
        return {
            "same_numbers": asdict(self.same_numbers),
            "unquantized": asdict(self.unquantized),
            "eager_unquantized": asdict(self.eager_unquantized),
        } | ({"route_flips": dict(self.route_flips)} if self.route_flips else {})


def verify(
    path: Path,
    config: DecoderConfig,
    parameters: Parameters,
    planned: Planned,
    rows: Sequence[WeightRow],
    *,
    kv_dtype: str,
    backend: str,
) -> Verification:
    """Run the program at ``path`` and the two eager models.

    ``parameters``, ``planned`` and ``kv_dtype`` are those it was exported with, ``rows`` what the
    stage pack reported.

    Raises:
        ExportError: the file does not hold the numbers that it was made of.
        NativeError, CapacityError: the run-time half of the backend is missing or failed.
        GenerationError: the program computes logits that are not finite.
    """
    with Program.open(path) as program, on_all_cores() as each:
        answers = answers_of(program, backend)

        def eager(opened: Opened, kv: str) -> Float32:
            model = streamed_model(
                config,
                opened,
                parameters.vector,
                context=program.plan.context,
                slots=len(answers.compared),
                tokens=max(map(len, answers.compared)),
                kv_dtype=CACHE_DTYPES[kv],
                each=each,
            )
            if not answers.routes:
                return eager_logits(model, answers.compared)
            shares = [torch.from_numpy(shares) for shares in answers.routes]
            with forced_routes(shares) as routes:
                logits = eager_logits(model, answers.compared)
            flips.append(routes.flipped / routes.rows)
            return logits

        ours = np.concatenate(answers.logits)
        flips: list[float] = []
        numbers = ReadBack()
        quantized = eager(numbers.stored(packed(program, planned)), kv_dtype)
        unquantized = eager(numbers.meant(unrounded(parameters)), "f32")
        numbers.check(_reported(planned, rows))
        pairs = (ours, quantized), (ours, unquantized), (quantized, unquantized)
        same, cost, eager_cost = compare_all(pairs, each)
        flipped = dict(zip(("same_numbers", "unquantized"), flips, strict=False))
        return Verification(answers.golden(), same, cost, eager_cost, flipped)


def _reported(planned: Planned, rows: Sequence[WeightRow]) -> Callable[[str], float | None]:
    """Return what gives the reported signal to noise ratio of a parameter; None: without loss."""
    reported = {(row.name, row.format): row.sqnr_db for row in rows}  # of a stack one
    tied, formats = planned.tied, planned.assignment.formats
    return lambda name: reported[tied.get(name, name), formats[name].name]


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
