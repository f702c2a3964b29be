"""Gemma 4 12B, whose model type is its own, while its text model is that of the larger Gemma 4: no
second table of embeddings, and values made of keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.families.family import Family
from edge_llm.llm.families.gemma4_text import (
    DEFAULT_SIZES,
    OTHER_PARTS,
    Gemma4TextConfig,
    read_facts,
)

DEFAULTS = DEFAULT_SIZES | {
    "hidden_size_per_layer_input": 0,
    "max_position_embeddings": 262_144,
    "sliding_window": 1024,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma4UnifiedTextConfig(Gemma4TextConfig):
    """Facts of a Gemma4UnifiedTextConfig."""

    model_type: ClassVar[str] = "gemma4_unified_text"


def read(reader: ConfigReader) -> Gemma4UnifiedTextConfig:
    """Read a Gemma4UnifiedTextConfig."""
    return Gemma4UnifiedTextConfig(**read_facts(reader))


GEMMA4_UNIFIED_TEXT = Family(
    config=Gemma4UnifiedTextConfig,
    read=read,
    wrapper="gemma4_unified",
    defaults=DEFAULTS,
    leftovers=re.compile(OTHER_PARTS),
)
