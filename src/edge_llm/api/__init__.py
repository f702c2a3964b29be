"""The Python API: load a program, generate, stream, chat, evaluate.

Everything here is safe to call from several threads: requests run together in one engine.
"""

from edge_llm.api.llm import LLM
from edge_llm.api.loading import aload, load
from edge_llm.runner.generation.answer import Completion, Piece
from edge_llm.runner.generation.loop import Stream

__all__ = ["LLM", "Completion", "Piece", "Stream", "aload", "load"]
