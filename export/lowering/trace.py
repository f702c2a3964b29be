"""Stage trace: the model as one ATen graph with two dynamic dimensions, T and R; and its plan."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from edge_llm.errors import ExportError
from edge_llm.export.lowering.lower import lower
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.models.build import build_model
from edge_llm.llm.models.draft import draft_of
from edge_llm.program.plan import INPUT_NAMES, Plan

# Example sizes; distinct, so that T and R stay two symbols, and not 0 or 1, which specialize.
_T, _R = 5, 3


def trace(model: nn.Module, *, hidden: int | None = None) -> ExportedProgram:
    """``torch.export`` of ``model`` (graph contract of the design, on ``meta``), not decomposed:
    the caches stay mutable buffers and ``linear``, ``rms_norm``, ``silu`` stay whole. ``hidden``:
    it has hidden states of so many columns as an input besides.

    Raises:
        ExportError: PyTorch could not trace the model.
    """
    tokens, rows = Dim("T", min=2), Dim("R", min=2)
    examples = tuple(
        torch.zeros(_R if name == "rows" else _T, dtype=torch.int64, device="meta")
        for name in INPUT_NAMES
    )
    shapes = {name: {0: rows if name == "rows" else tokens} for name in INPUT_NAMES}
    if hidden is not None:
        examples += (torch.zeros(_T, hidden, device="meta"),)
        shapes["hidden"] = {0: tokens}
    try:
        with torch.no_grad():
            return torch.export.export(model, examples, dynamic_shapes=shapes)
    except Exception as exc:  # torch raises many unrelated types here
        raise ExportError(f"torch.export could not trace {type(model).__name__}: {exc}") from exc


def traced_plan(config: DecoderConfig, context: int, operators: frozenset[str]) -> Plan:
    """Return the plan of the module of ``config``, its matrices in float32; ``operators`` are those
    that the backend executes.

    Raises:
        ExportError: PyTorch could not trace the model, or the plan cannot express it.
    """
    model = build_model(config, context=context, kv_dtype=torch.float32)
    draft = draft_of(model)
    return lower(
        trace(model),
        context=context,
        operators=operators,
        draft=None if draft is None else trace(draft, hidden=config.hidden_size),
    )
