"""Models whose parameters are changed in ways that leave the function, beside the eager oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_llm.export.backends.registry import get_backend
from edge_llm.export.lowering.graph import Planned, plan_model
from edge_llm.export.meter import Meter, silent
from edge_llm.export.origin.load import load
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.verification.numbers import unrounded
from edge_llm.export.verification.streamed import streamed_model
from edge_llm.export.verification.threads import in_turn
from edge_llm.export.verification.verify import eager_logits
from edge_llm.export.weights.parameters import Parameters, parameters_of
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.registry import constants, shared_parameters

TEXTS = [list(range(5, 45)), list(range(60, 80))]


def planned_model(source: Path, **options: Any) -> tuple[DecoderConfig, Planned, Parameters]:
    """Return the config, the plan for 64 tokens and the parameters of a checkpoint, by a recipe
    with these ``options``."""
    recipe = Recipe(model=str(source), context=64, **options)
    loaded = load(recipe)
    planned = plan_model(loaded, recipe, get_backend("native"), Meter(), silent)
    config = loaded.checkpoint.config
    tables = constants(config, 64)
    own = parameters_of(
        loaded.checkpoint,
        recipe,
        tied=shared_parameters(config),
        constants=tables,
        turns=planned.rotations.turns,
    )
    return config, planned, own


def logits(config: DecoderConfig, parameters: Parameters) -> np.ndarray:
    """Return the logits of `TEXTS`, nothing rounded, [n, vocab]."""
    model = streamed_model(
        config,
        unrounded(parameters),
        parameters.vector,
        context=64,
        slots=len(TEXTS),
        tokens=max(map(len, TEXTS)),
        kv_dtype=torch.float32,
        each=in_turn,
    )
    return eager_logits(model, TEXTS)
