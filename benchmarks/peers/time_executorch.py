"""Times an ExecuTorch program: forward(tokens, position) of its pybindings, no sampling."""

from __future__ import annotations

from importlib.metadata import version

import executorch.extension.llm.custom_ops.custom_ops
import executorch.kernels.quantized  # noqa: F401 (its embedding operators)
import torch
from executorch.extension.pybindings import portable_lib
from worker import CHUNK, serve, timed, token_ids


class ExecuTorch:
    def __init__(self, path: str, threads: int, context: int) -> None:
        portable_lib._unsafe_reset_threadpool(threads)
        self._module = portable_lib._load_for_executorch(path)
        self.version = version("executorch")
        self.vocab = self._module.run_method("get_vocab_size", [])[0]
        self._held = 0

    def fill(self, depth: int) -> None:
        if depth > self._held:
            self._run(depth - self._held, CHUNK)
        self._held = depth

    def prefill(self, tokens: int) -> float:
        return timed(lambda: self._run(tokens, CHUNK))

    def decode(self, tokens: int) -> float:
        return timed(lambda: self._run(tokens, 1))

    def greedy(self, ids: list[int]) -> int:
        self._held = 0
        return int(self._step(ids).flatten().argmax())

    def _run(self, tokens: int, chunk: int) -> None:
        end = self._held + tokens
        while self._held < end:
            self._step(token_ids(self._held, min(chunk, end - self._held), self.vocab))

    def _step(self, ids: list[int]) -> torch.Tensor:
        inputs = (torch.tensor([ids]), torch.tensor([self._held]))
        logits: torch.Tensor = self._module.forward(inputs, clone_outputs=False)[0]
        self._held += len(ids)
        return logits


if __name__ == "__main__":
    serve(ExecuTorch)
