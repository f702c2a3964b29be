"""The PyTorch module of Gemma 4 12B; its facts are in `families/gemma4_unified_text.py`."""

from __future__ import annotations

from edge_llm.llm.models.gemma4_text import build

__all__ = ["build"]
