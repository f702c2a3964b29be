"""A recipe in eager PyTorch: its numbers, tried without exporting anything."""

from __future__ import annotations

from torch import nn

from edge_llm.export.backends.registry import get_backend
from edge_llm.export.lowering.graph import plan_model
from edge_llm.export.meter import Meter, silent
from edge_llm.export.origin.load import load
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.verification.numbers import made
from edge_llm.export.verification.streamed import streamed_model
from edge_llm.export.verification.threads import in_turn
from edge_llm.export.weights.calibration import evened
from edge_llm.export.weights.parameters import parameters_of
from edge_llm.llm.models.ops import CACHE_DTYPES
from edge_llm.llm.registry import shared_parameters


def eager_model(recipe: Recipe, *, slots: int, tokens: int) -> nn.Module:
    """The model with the integers, formats and KV dtype that the recipe's program has, without
    calibration, and with room for ``slots`` sequences of ``tokens`` positions. It reads and
    quantizes its weights as it runs, so it takes little memory and is slow. Signature: the graph
    contract, ``model(tokens, positions, sequences, rows) -> logits``.

    Raises:
        ConfigError, SourceError, CheckpointError, TokenizerError, ExportError: as the export does.
    """
    loaded = load(recipe)
    checkpoint, context = loaded.checkpoint, loaded.context
    kv_dtype = CACHE_DTYPES[recipe.kv_format()]
    planned = plan_model(loaded, recipe, get_backend(recipe.backend), Meter(), silent)
    parameters = parameters_of(
        checkpoint,
        recipe,
        tied=shared_parameters(checkpoint.config),
        constants={},
        turns=planned.rotations.turns,
    )
    parameters = evened(planned, recipe, parameters)
    return streamed_model(
        checkpoint.config,
        made(parameters, planned.assignment),
        parameters.vector,
        context=context,
        slots=slots,
        tokens=tokens,
        kv_dtype=kv_dtype,
        each=in_turn,
    )
