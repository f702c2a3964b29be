"""``edge-llm chat`` with a model that says what a script has: for looking at the terminal.

As a program: ``python scripted_chat.py SCRIPT`` with a JSON file of ``answers`` (lists of pieces)
and ``options`` of `talk`. The piece "<gate>" waits for a file of that name beside the script.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edge_llm.runner.generation.answer import Piece
from edge_llm.runner.sampling import SamplingParams


class ScriptedModel:
    """Answers with the next pieces of a script, whatever is asked; "(" begins a piece of thinking
    that ends with ")"."""

    name = "scripted"
    context = 1000
    adapters: tuple[str, ...] = ()

    def __init__(self, answers: list[list[str]], folder: Path | None = None) -> None:
        self._answers = iter(answers)
        self._folder = folder
        self.asked: list[Any] = []
        self.program = SimpleNamespace(path="scripted.edge", plan=SimpleNamespace(context=1000))
        self.about = SimpleNamespace(quantization="none", thinking=True, thinking_switch=True)

    def require_chat_template(self) -> None:
        """Accept."""

    def default_params(self, **overrides: Any) -> SamplingParams:
        """Return what is set."""
        return SamplingParams(**overrides)

    def encode_chat(self, messages: list[Any], **options: Any) -> list[int]:
        """Return a token for each word."""
        return [0] * sum(len(message["content"].split()) for message in messages)

    def close(self) -> None:
        """Do nothing."""

    def chat(self, messages: list[Any], *options: Any, **more: Any) -> Iterator[Piece]:
        """Return the next answer."""
        self.asked.append(messages)
        return self._pieces(next(self._answers))

    def _pieces(self, pieces: list[str]) -> Iterator[Piece]:
        for piece in pieces:
            if piece == "<gate>":
                assert self._folder is not None
                while not (self._folder / "gate").exists():
                    time.sleep(0.01)
            elif piece.startswith("(") and piece.endswith(")"):
                yield Piece("", reasoning=piece[1:-1])
            else:
                yield Piece(piece)
        yield Piece("", finish_reason="stop")


def main(script: Path) -> None:
    """Talk as the script says."""
    from edge_llm.cli.chat.loop import talk
    from edge_llm.cli.chat.session import Session

    document = json.loads(script.read_text())
    model: Any = ScriptedModel(document["answers"], script.parent)
    options = {"plain": False, "hide_thinking": False, **document.get("options", {})}
    talk(Session(model, lambda name: model, {}, None), **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
