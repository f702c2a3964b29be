"""Times an ONNX Runtime GenAI folder: append_tokens computes logits, no sampling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from worker import CHUNK, serve, timed, token_ids


class OnnxRuntime:
    def __init__(self, path: str, threads: int, context: int) -> None:
        config = og.Config(path)
        config.overlay(
            json.dumps(
                {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
            )
        )
        self._model = og.Model(config)
        settings = json.loads((Path(path) / "genai_config.json").read_text(encoding="utf-8"))
        self.vocab = settings["model"]["vocab_size"]
        self.version = og.__version__
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=context, do_sample=False)
        self._generator = og.Generator(self._model, params)
        self._held = 0

    def fill(self, depth: int) -> None:
        if depth > self._held:
            self._run(depth - self._held, CHUNK)
        elif depth < self._held:
            self._generator.rewind_to(depth)
        self._held = depth

    def prefill(self, tokens: int) -> float:
        return timed(lambda: self._run(tokens, CHUNK))

    def decode(self, tokens: int) -> float:
        return timed(lambda: self._run(tokens, 1))

    def greedy(self, ids: list[int]) -> int:
        self.fill(0)
        self._step(ids)
        return int(self._generator.get_logits().reshape(-1, self.vocab)[-1].argmax())

    def _run(self, tokens: int, chunk: int) -> None:
        end = self._held + tokens
        while self._held < end:
            self._step(token_ids(self._held, min(chunk, end - self._held), self.vocab))

    def _step(self, ids: list[int]) -> None:
        self._generator.append_tokens(np.array(ids, np.int32))
        self._held += len(ids)


if __name__ == "__main__":
    serve(OnnxRuntime)
